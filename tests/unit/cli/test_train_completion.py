"""What is completed about training: runs, data sets, optimisers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer

from encephalon.cli.completion import complete_data_set, complete_optimizer, complete_run, complete_schedule
from encephalon.local.training import Runs
from encephalon.state import open_key_value
from encephalon.state.embedded import key_value_url
from encephalon.training.runs import RunSettings
from tests.command_line import logs_as_before


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    with logs_as_before():
        yield


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    async with open_key_value(key_value_url(tmp_path)) as store:
        for name in ("digits-1", "digits-2", "other"):
            await Runs(store, "default").begin(RunSettings(run=name, brain="brain:digits@1", data="data_set:d@1"))
    return tmp_path


def context(folder: Path, **given: Any) -> typer.Context:
    return cast(typer.Context, SimpleNamespace(params={"state_dir": folder, **given}))


def test_runs(folder: Path) -> None:
    assert complete_run(context(folder), "dig") == ["digits-1", "digits-2"]
    assert complete_run(context(folder, namespace="elsewhere"), "") == []
    assert complete_run(context(folder / "nowhere"), "") == []
    assert complete_run(context(folder, etcd="127.0.0.1:1"), "") == []
    assert complete_data_set(context(folder), "") == []


def test_names_of_torch() -> None:
    assert complete_optimizer("adamw") == ["AdamW"]
    assert complete_optimizer("S") == ["SGD"]
    assert complete_schedule("cos") == ["CosineAnnealingLR", "CosineAnnealingWarmRestarts", "cosine"]
