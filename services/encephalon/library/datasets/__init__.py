"""Data sets of the library: how they come in (recipes, folders, tables, arrays), how they lie in shards, and how their
samples are streamed out again. Knows numpy and Arrow, never torch; pyarrow is imported when it is needed."""

from encephalon.library.avmnist.progress import Progress, silent
from encephalon.library.datasets.adding import add_arrays, add_data_set
from encephalon.library.datasets.options import DataSetOptions
from encephalon.library.datasets.recipe import avmnist_modalities

__all__ = ["DataSetOptions", "Progress", "add_arrays", "add_data_set", "avmnist_modalities", "silent"]
