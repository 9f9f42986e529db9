"""Finds the raw data sets that some tests need, and says why a test is skipped when they are not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["needs_raw_data", "raw_data"]

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
"""A folder `shared/data` beside the repository."""

PARTS = ("mnist", "fsdd/recordings", "esc10")


def raw_data() -> Path | None:
    """The folder with MNIST, spoken digits and noises: beside the repository, or where ENCEPHALON_TEST_DATA says."""
    named = os.environ.get("ENCEPHALON_TEST_DATA")
    for folder in (BESIDE, *([Path(named)] if named else [])):
        if all((folder / part).is_dir() for part in PARTS):
            return folder
    return None


needs_raw_data = pytest.mark.skipif(raw_data() is None, reason=f"no raw data at {BESIDE} or at ENCEPHALON_TEST_DATA")
