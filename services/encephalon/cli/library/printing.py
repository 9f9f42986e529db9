"""The one JSON document of `--json`."""

from __future__ import annotations

import json
import sys

__all__ = ["print_json", "print_line"]


def print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_line(document: object) -> None:
    """One of many: on a line of its own, at once."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()
