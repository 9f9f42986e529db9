"""How a failure reaches the user: one sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import typer

__all__ = ["FAILED", "MISUSED", "reported"]

FAILED, MISUSED = 1, 2
INTERRUPTED = 128 + signal.SIGINT  # what a shell expects of a program that Ctrl-C ended

# Depending on its release typer carries a copy of click or uses the installed one; either way this is ClickException.
UsageError: type[Exception] = typer.BadParameter.__mro__[2]


def reported(command: Callable[[], object]) -> int:
    """Runs the command and returns the exit code; what it raised has been said."""
    try:
        result = command()
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except typer.Exit as error:
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UsageError as error:
        sentence = usage_sentence(error)
        return said(sentence, MISUSED) if sentence else MISUSED
    except Exception as error:  # noqa: BLE001 - the outermost place: everything is told in one sentence
        return failure(error)
    return result if isinstance(result, int) else 0


def usage_sentence(error: Exception) -> str:
    """Empty when the help was shown instead, because no command was typed."""
    message = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    if not message.strip():
        return ""
    command = getattr(getattr(error, "ctx", None), "command_path", "encephalon")
    return f"{message.strip().rstrip('.')}; see {command} --help"


def failure(error: Exception) -> int:
    from encephalon.core.errors import EncephalonError, InvalidInput, InvalidManifest, NotFound, Unsupported

    if isinstance(error, InvalidInput | InvalidManifest | NotFound | Unsupported):
        return said(error.message, MISUSED)
    if isinstance(error, EncephalonError):
        return said(error.message, FAILED)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return said(f"the package '{error.name.partition('.')[0]}' is missing; pip install 'encephalon[all]'", FAILED)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return said(f"{where}{error.strerror or error}", FAILED)
    if os.environ.get("ENCEPHALON_TRACEBACK"):
        raise error
    return said(
        f"unexpected {type(error).__name__}: {error}; set ENCEPHALON_TRACEBACK=1 to see where, and please report it",
        FAILED,
    )


def said(sentence: str, code: int) -> int:
    """Writes one line, whatever line breaks the sentence has."""
    sys.stderr.write(f"encephalon: {' '.join(sentence.split())}\n")
    return code
