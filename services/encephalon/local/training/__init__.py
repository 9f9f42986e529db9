"""Runs a whole training run on this machine: control node, shards of the parameter server, workers, learning regions.

It writes what the run is to do where its processes find it, starts, watches and restarts them, and says how it went.
Knows nothing of gradients and imports no torch.
"""

from encephalon.local.training.kept import OVER, Runs
from encephalon.local.training.options import TrainingOptions
from encephalon.local.training.run import Training, training

__all__ = ["OVER", "Runs", "Training", "TrainingOptions", "training"]
