"""Data sets of the library: how they come in (recipes, folders, tables, arrays), how they lie in shards, and how their
samples are streamed out again. Knows numpy and Arrow, never torch; pyarrow is imported when it is needed."""

from encephalon.library.avmnist.progress import Progress, silent
from encephalon.library.datasets.adding import add_arrays, add_data_set
from encephalon.library.datasets.making import Batched, Sample
from encephalon.library.datasets.options import DataSetOptions
from encephalon.library.datasets.reader import StreamingReader, open_data_set, open_record
from encephalon.library.datasets.reading import reading
from encephalon.library.datasets.recipe import avmnist_modalities
from encephalon.library.datasets.stream import Stream

__all__ = [
    "Batched",
    "DataSetOptions",
    "Progress",
    "Sample",
    "Stream",
    "StreamingReader",
    "add_arrays",
    "add_data_set",
    "avmnist_modalities",
    "open_data_set",
    "open_record",
    "reading",
    "silent",
]
