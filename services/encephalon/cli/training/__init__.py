"""`encephalon train` and `encephalon runs`: what is typed becomes settings of a run, how it goes becomes pictures.

`options` and `commands` declare what can be typed; every other module is imported when it is used.
"""

from encephalon.cli.training.commands import app, train

__all__ = ["app", "train"]
