"""Runs a whole training run on this machine: control node, shards of the parameter server, workers, learning regions.

It writes what the run is to do where its processes find it, starts, watches and restarts them, and says how it went.
Knows nothing of gradients and imports no torch.
"""

from encephalon.local.training.asked import CHANGEABLE, Asked
from encephalon.local.training.kept import OVER, Runs
from encephalon.local.training.options import TrainingOptions
from encephalon.local.training.packages import check_installed
from encephalon.local.training.result import Judged, TrainingResult, pictures_of, plain, result_of, state_name
from encephalon.local.training.run import Training, training
from encephalon.local.training.watching import ask_to_stop, living
from encephalon.local.training.whole import begun, finished, opened, settled, train, train_async

__all__ = [
    "CHANGEABLE",
    "OVER",
    "Asked",
    "Judged",
    "Runs",
    "Training",
    "TrainingOptions",
    "TrainingResult",
    "ask_to_stop",
    "begun",
    "check_installed",
    "finished",
    "living",
    "opened",
    "pictures_of",
    "plain",
    "result_of",
    "settled",
    "state_name",
    "train",
    "train_async",
    "training",
]
