"""Runs of which only the library knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli.training.listing import looks, row, summary
from encephalon.cli.training.recorded import found
from encephalon.core.errors import NotFound
from encephalon.library.library import Library
from encephalon.local.training import Runs
from encephalon.state import open_key_value, open_objects
from encephalon.state.embedded import key_value_url, objects_url
from encephalon.training.runs import RunSettings, keys_of


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    """With the run `old`, which nobody remembers, and the run `other`, which is not of ours."""
    async with open_key_value(key_value_url(tmp_path)) as store, open_objects(objects_url(tmp_path)) as objects:
        library = Library(store, objects)
        settings = RunSettings(run="old", brain="brain:digits@1", data="data_set:d@1", targets={"probabilities": 1.0})
        body = pb.Run(state=pb.Run.STATE_SUCCEEDED, settings=settings.model_dump_json())
        figures = {"steps": 40, "samples": 800, "seconds": 4, "bytes": 9, "accuracy.test": 0.9, "loss.test": 0.3}
        body.started_time.FromSeconds(1_700_000_000)
        body.ended_time.FromSeconds(1_700_000_009)
        await library.add(pb.Record(id=pb.Reference(kind=pb.KIND_RUN, name="old"), metrics=figures, run=body))
        body.settings = "{}"
        await library.add(pb.Record(id=pb.Reference(kind=pb.KIND_RUN, name="other"), run=body))
        yield library


async def test_they_are_listed_and_shown(library: Library) -> None:
    runs = Runs(library.key_value, "default")
    await runs.begin(RunSettings(run="new", brain="brain:digits@1", data="data_set:d@1"))
    old, new = await looks(library, "default")
    assert row(old) == ["old", "succeeded", "digits@1", "d@1", "5/5", "40", "200", "0.3", "90.0 %"]
    assert row(new) == ["new", "new", "digits@1", "d@1", "0/5", "0", "", "", ""]
    assert summary(old)["accuracy"] == 0.9
    result = (await found(library, runs, "old")).result
    assert (result.steps, result.samples, result.made) == (40, 800, {"run": "run:old@1"})
    assert result.test is not None
    assert result.test.accuracy == {"probabilities": 0.9}
    with pytest.raises(NotFound, match="there is no run 'older'"):
        await found(library, runs, "older")


async def test_a_run_that_cannot_be_read_hides_no_other(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    await library.key_value.put(keys_of("default", "future")[0], b'{"run": "future", "speed": null}')
    assert [each.run for each in await looks(library, "default")] == ["old"]
    captured = capsys.readouterr()
    assert captured.err.startswith("run 'future' is not one of this version: ")
    assert captured.out == ""
