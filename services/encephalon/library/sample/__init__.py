"""Real test pairs of AV-MNIST that ship with the package, so that a brain has something to see and hear at once."""

from encephalon.library.sample.pairs import Sample, load_sample

__all__ = ["Sample", "load_sample"]
