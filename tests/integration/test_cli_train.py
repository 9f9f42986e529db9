"""`encephalon train` and `encephalon runs`, with processes that only pretend, and once with real ones."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import encephalon
from encephalon.api.training.v1.training_pb2 import RunStatus
from encephalon.cli.training.watching import Screen
from encephalon.state.embedded import key_value_url, objects_url
from tests.command_line import CommandLine
from tests.servers import etcd_server, juicefs_gateway
from tests.training.brains import SMALL, add_data
from tests.unit.local.training.pretending import pretend

TRAIN = ("train", "digits", "--data", "avmnist-sample")


@pytest.fixture
def command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(tmp_path, capsys, monkeypatch)


def interrupting(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Presses Ctrl-C when the run has come to this step."""
    tell = Screen.tell

    def told(screen: Screen, status: RunStatus) -> None:
        before = screen.last.version if screen.last is not None else 0
        tell(screen, status)
        if before < step <= status.version:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Screen, "tell", told)


def test_a_run_is_told_reported_listed_and_shown(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    said = command_line.run(*TRAIN, "--workers", 2, "--epochs", 2, "--optimizer", "sgd", "--lr", 0.1)
    assert said.code == 0, said.err
    lines = said.err.splitlines()
    assert lines[0] == "Run 'digits-1' starts ..."
    assert "0:00:01 validation after epoch 2: loss 0.5, right: probabilities 75.0 %" in lines
    assert said.out.startswith("Run 'digits-1' has succeeded: all epochs are done\n")
    assert "`encephalon up digits@2` runs what it has learned.\n" in said.out
    (run,) = command_line.run("runs", "ls", "--json").document["runs"]
    expected = {"run": "digits-1", "state": "succeeded", "brain": "brain:digits@1", "steps": 10, "accuracy": 0.75}
    assert run.items() >= expected.items()
    assert "digits-1  succeeded  digits@1" in command_line.run("runs", "ls").out
    shown = command_line.run("runs", "show", "digits-1", "--json").document
    assert shown.items() >= {"run": "digits-1", "steps": 10, "samples": 200, "loss": 0.5, "accuracy": 0.75}.items()
    assert shown["settings"]["optimizer_arguments"] == {"lr": 0.1}
    assert shown["made"]["brain"] == "brain:digits@2"
    plain = command_line.run("runs", "show", "digits-1").out
    assert all(word in plain for word in ("SGD", '{"lr": 0.1}', "network:digits-visual@1", "75.0 %"))
    refusals: list[tuple[tuple[Any, ...], str, int]] = [
        (("runs", "show", "digits-2"), "there is no run 'digits-2'; did you mean 'digits-1'?", 2),
        (("runs", "stop", "digits-1"), "run 'digits-1' does not run, it is succeeded; it is done", 1),
        (("runs", "resume", "digits-1"), "run 'digits-1' has succeeded; there is nothing to go on with", 1),
        ((*TRAIN, "--name", "digits-1"), "there is a run 'digits-1' already", 1),
        (("train", "digits"), "from what is digits to learn?", 2),
        (("train",), "which brain is to learn?", 2),
        (("train", "digit", "--data", "avmnist-sample"), "did you mean 'digits'?", 2),
        ((*TRAIN, "--optimizer", "adamx"), "there is no optimizer 'adamx'", 2),
        ((*TRAIN, "--mode", "fast"), "Invalid value for '--mode'", 2),
    ]
    for words, sentence, code in refusals:
        refused = command_line.run(*words)
        assert (refused.code, sentence in refused.sentence) == (code, True), refused.err


def test_ctrl_c_leaves_a_checkpoint(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, controller="wait")
    interrupting(monkeypatch, 3)
    said = command_line.run(*TRAIN, "--json")
    assert said.code == 130
    assert said.document["state"] == "stopped"
    assert said.document["steps"] >= 3
    assert "stops with a checkpoint; Ctrl-C again ends it at once ..." in said.err
    assert command_line.run("runs", "ls", "--json").document["runs"][0]["state"] == "stopped"


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_more_workers(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        pretend(patch, controller="wait")
        interrupting(patch, 3)
        assert command_line.run(*TRAIN).code == 130
    pretend(monkeypatch)
    said = command_line.run("runs", "resume", "digits-1", "--workers", 3, "--json")
    assert said.code == 0, said.err
    assert said.document["state"] == "succeeded"
    assert "worker-2" in {path.stem for path in (command_line.folder / "runs" / "digits-1" / "logs").iterdir()}


async def points(folder: Path, samples: int) -> None:
    """The data set of the small brain."""
    stores = key_value_url(folder), objects_url(folder)
    async with encephalon.open_library(*stores, cache_dir=folder / "cache") as library:
        await add_data(library, SMALL, samples)


@pytest.mark.timeout(180)
def test_a_small_brain_learns_in_real_processes(tmp_path: Path) -> None:
    asyncio.run(points(tmp_path, 200))
    manifest = tmp_path / "dense.yaml"
    manifest.write_text(SMALL.manifest)
    told: list[RunStatus] = []
    result = encephalon.train(
        manifest, "points", epochs=3, batch_size=30, from_scratch=True, state_dir=tmp_path, progress=told.append
    )
    assert (result.run, result.state, result.steps, result.samples) == ("dense-1", "succeeded", 18, 540)
    assert result.loss is not None
    assert result.loss < result.validation[0].loss
    assert set(result.made) == {"brain", "net", "run"}
    assert result.made["brain"] == "brain:dense@2"
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in result.pictures.values())
    assert set(result.pictures) == {"curves.png", "shares.png"}
    assert told[-1].version == 18


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_run_lives_in_the_stores_of_a_cluster(tmp_path: Path) -> None:
    async with etcd_server() as etcd, juicefs_gateway() as minio:
        manifest = tmp_path / "dense.yaml"
        manifest.write_text(SMALL.manifest)
        stores = {"state": etcd.url, "objects": minio.url, "namespace": "cluster"}
        async with encephalon.open_library(**stores, cache_dir=tmp_path / "cache") as library:
            await add_data(library, SMALL, 200)
        result = await encephalon.train_async(manifest, "points", epochs=2, shards=2, state_dir=tmp_path, **stores)
        assert result.state == "succeeded"
        async with encephalon.open_library(**stores, cache_dir=tmp_path / "cache") as library:
            assert (await library.show(result.made["brain"])).id.version == 2
        assert not (tmp_path / "state.db").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("more", [["--mode", "ssp", "--optimizer", "sgd"], ["--deterministic", "--schedule", "cosine"]])
def test_the_sample_trains_and_what_it_made_runs(command_line: CommandLine, more: list[str]) -> None:
    said = command_line.run(*TRAIN, "--workers", 2, "--shards", 2, "--epochs", 2, "--json", *more)
    assert said.code == 0, said.err
    document = said.document
    assert (document["state"], document["samples"]) == ("succeeded", 540)
    assert document["accuracy"] > 0.3
    made = command_line.json("show", document["made"]["brain"])
    assert made["version"] == 2
    assert {parent["role"] for parent in made["parents"]} >= {"network", "run", "data_set", "previous"}


@pytest.mark.slow
def test_a_run_that_fails_says_why_and_how_to_go_on(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, controller="fail")
    said = command_line.run(*TRAIN, "--json")
    assert said.code == 1
    assert said.document["state"] == "failed"
    sentence = said.err.splitlines()[-1]
    assert sentence.startswith("encephalon: run 'digits-1' failed: worker-1, region 'visual': the gradient of 'a'")
    assert sentence.endswith("`encephalon runs resume digits-1` goes on from its last checkpoint")


@pytest.mark.slow
def test_ctrl_c_twice_ends_it_at_once(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, controller="deaf")
    interrupting(monkeypatch, 3)
    stop = "encephalon.local.training.run.Training.stop"

    async def stopping(training: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        await training._crew.until_controller_ended()
        return await training._end()

    monkeypatch.setattr(stop, stopping)
    said = command_line.run(*TRAIN)
    assert said.code == 130
    assert "run 'digits-1' was broken off: it was killed" in said.err
    assert command_line.run("runs", "ls", "--json").document["runs"][0]["state"] == "new"
