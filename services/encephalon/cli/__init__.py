"""The command line: reads what was typed, shows what came out. What is done lies in `local`, `client` and `library`.

Everything heavy is imported inside the command that needs it, so that a short command is short.
"""

from encephalon.cli.app import main

__all__ = ["main"]
