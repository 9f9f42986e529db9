"""The stores of one machine: where they lie when nobody names any."""

from __future__ import annotations

from pathlib import Path

from encephalon.core.errors import FailedPrecondition

__all__ = ["default_state_dir", "key_value_url", "objects_url", "prepare", "unwritable"]


def default_state_dir() -> Path:
    """The folder that the platform keeps for a user's state, for example ~/.local/state/encephalon."""
    import platformdirs

    return Path(platformdirs.user_state_dir("encephalon", appauthor=False))


def key_value_url(folder: Path) -> str:
    """For `open_key_value`: the file of the state folder."""
    return f"sqlite://{folder.resolve() / 'state.db'}"


def objects_url(folder: Path) -> str:
    """For `open_objects`: the folder of objects in the state folder."""
    return f"folder://{folder.resolve() / 'objects'}"


def prepare(folder: Path) -> None:
    """Makes the state folder, for this user alone; FailedPrecondition when that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(
        f"the state folder {folder} cannot be written ({error.strerror}); choose another with --state-dir"
    )
