"""The virtual environments of the systems that are compared with, made once and kept in `.bench/` of the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["CACHE", "environment", "site_packages", "version"]

CACHE = Path(__file__).resolve().parents[3] / ".bench"


def environment(name: str, *requirements: str) -> Path:
    """Returns the interpreter of the environment `name`, made and filled first if it is not there complete."""
    folder = CACHE / name
    python, complete = folder / "bin" / "python", folder / "complete"
    wanted = "\n".join(requirements)
    if not complete.is_file() or complete.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        complete.write_text(wanted)
    return python


def site_packages(python: Path) -> Path:
    """The folder that holds the packages of the environment whose interpreter is `python`."""
    return next((python.parents[1] / "lib").glob("python3*/site-packages"))


def version(python: Path, package: str) -> str:
    """The version of `package` in the environment of `python`."""
    query = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", query], check=True, capture_output=True, text=True).stdout.strip()
