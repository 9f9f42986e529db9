"""Runs a whole brain on this machine: a coordinator and a process per region, or all of it in one process.

It plans, starts, watches, restarts and stops processes. It imports no torch: the one module that hosts networks,
`encephalon.local.colocated`, is a process of its own and is never imported from here.
"""

from encephalon.library.builtins import example
from encephalon.local.folders import Folders, default_state_dir
from encephalon.local.options import Options, Placement
from encephalon.local.runfile import ProcessEntry, RunFile, running_brains, stop
from encephalon.local.supervisor import Supervisor, supervised

__all__ = [
    "Folders",
    "Options",
    "Placement",
    "ProcessEntry",
    "RunFile",
    "Supervisor",
    "default_state_dir",
    "example",
    "running_brains",
    "stop",
    "supervised",
]
