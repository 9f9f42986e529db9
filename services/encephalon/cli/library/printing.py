"""The one JSON document of `--json`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["print_json", "print_line"]


def print_json(document: object) -> None:
    sys.stdout.write(json.dumps(finite(document), allow_nan=False, indent=2, ensure_ascii=False) + "\n")


def print_line(document: object) -> None:
    """One of many: on a line of its own, at once."""
    sys.stdout.write(json.dumps(finite(document), allow_nan=False, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def finite(document: Any) -> Any:
    """With null for numbers that JSON does not have: NaN and the infinite ones."""
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, Mapping):
        return {name: finite(value) for name, value in document.items()}
    return [finite(value) for value in document] if isinstance(document, (list, tuple)) else document
