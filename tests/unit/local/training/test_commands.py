"""Which processes a run has, and what they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from encephalon.local.training.commands import commands
from encephalon.local.training.options import TrainingOptions
from encephalon.training.runs import RunSettings
from encephalon.training.settings import ControlSettings

REGIONS = ("visual", "auditory")
SETTINGS = RunSettings(run="first", brain="brain:digits@1", data="data_set:d@1", workers=2, shards=3, threads=4)


def test_roles_names_and_threads(tmp_path: Path) -> None:
    planned = commands(SETTINGS, TrainingOptions(state_dir=tmp_path), REGIONS)
    names = {role: [command.name for command in group] for role, group in planned.items()}
    assert names == {
        "controller": ["control-node"],
        "shard": ["shard-0", "shard-1", "shard-2"],
        "worker": ["worker-0", "worker-1"],
        "region": [],
    }
    assert planned["worker"][0].environment["OMP_NUM_THREADS"] == "4"
    assert planned["shard"][0].environment["OMP_NUM_THREADS"] == "1"
    assert planned["worker"][0].environment["MALLOC_TRIM_THRESHOLD_"] == "4294967296"
    assert planned["shard"][2].log == tmp_path / "runs" / "first" / "logs" / "shard-2.log"


def test_a_pipeline_has_a_process_for_each_region_of_each_worker(tmp_path: Path) -> None:
    options = TrainingOptions(state_dir=tmp_path, processes=1)
    (first, second) = commands(SETTINGS.model_copy(update={"pipeline": True}), options, REGIONS)["region"]
    assert (first.name, second.name) == ("worker-0.visual", "worker-0.auditory")
    assert first.arguments[:6] == ("--run", "first", "--worker", "worker-0", "--region", "visual")


def test_addresses_of_stores_are_not_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may hold secrets, and arguments are public; each process takes its own."""
    objects = "minio://access:secret@127.0.0.1:1/bucket"
    options = TrainingOptions(state="etcd://127.0.0.1:2", objects=objects, state_dir=tmp_path, namespace="here")
    for group in commands(SETTINGS, options, REGIONS).values():
        for command in group:
            assert "secret" not in " ".join(command.arguments)
            assert command.environment["ENCEPHALON_OBJECTS"] == objects
    (controller,) = commands(SETTINGS, options, REGIONS)["controller"]
    for name, value in controller.environment.items():
        monkeypatch.setenv(name, value)
    told = ControlSettings.read(controller.arguments)
    assert (told.run, told.namespace, told.objects) == ("first", "here", objects)
    assert told.folder == tmp_path / "runs" / "first"
