from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from encephalon.core.errors import InvalidInput
from encephalon.library.brains import Brain, load_manifest
from encephalon.local import Options, example
from encephalon.local.decisions import decided, weights_file
from encephalon.local.plan import Site, commands, hosts, replicas, threads_per_region

SITE = Site(
    manifest=Path("/state/brain.yaml"),
    address="127.0.0.1:9000",
    metrics_port=0,
    state="sqlite:///state/state.db",
    objects="minio://key:secret@127.0.0.1:1/weights",
    namespace="here",
    runtime=Path("/run/enc"),
    logs=Path("/state/logs"),
)
DEFAULTS = Options(state_dir=Path("/state"))


def plan(name: str = "digits", **chosen: object) -> dict[str, tuple[str, tuple[str, ...]]]:
    planned = commands(brain(name, **chosen), SITE)
    return {command.name: (command.module, command.arguments) for command in planned}


def brain(name: str = "digits", **chosen: object) -> Brain:
    return decided(load_manifest(example(name)), replace(DEFAULTS, **chosen), Path("/manifests"))


def test_distributed_is_a_process_per_region_and_one_for_the_coordinator() -> None:
    planned = plan()
    assert list(planned) == ["coordinator", "visual-0", "auditory-0", "association-0"]
    assert [module for module, _ in planned.values()] == ["encephalon.coordinator", *["encephalon.region"] * 3]


def test_colocated_is_one_process() -> None:
    assert [module for module, _ in plan(placement="colocated").values()] == ["encephalon.local.colocated"]


def test_replicas_are_processes_with_sockets_of_their_own() -> None:
    planned = commands(brain(replicas={"visual": 3}), SITE)
    assert [command.name for command in planned if command.region == "visual"] == ["visual-0", "visual-1", "visual-2"]
    assert len({command.socket for command in planned}) == len(planned)


def test_regions_that_live_elsewhere_are_not_started() -> None:
    assert list(plan("borrowed")) == ["coordinator", "auditory-0", "auditory-1", "association-0"]


def test_secrets_are_in_no_argument() -> None:
    assert all("secret" not in argument for command in commands(brain(), SITE) for argument in command.arguments)


def test_every_process_gets_the_settings_of_the_memory_allocator() -> None:
    for command in commands(brain(), SITE):
        assert command.environment["MALLOC_MMAP_THRESHOLD_"] == "1073741824"
        assert command.environment["MALLOC_TRIM_THRESHOLD_"] == "4294967296"


def test_cores_are_shared_out_and_every_region_has_one() -> None:
    assert threads_per_region(10_000) == 1
    assert threads_per_region(1) >= 1


@pytest.mark.parametrize(
    ("name", "replicas", "sentence"),
    [
        ("digits", {"nose": 2}, "has no region 'nose'; its regions are visual, auditory, association"),
        ("digits", {"visual": 0}, "cannot have 0 replicas"),
        ("borrowed", {"visual": 2}, "region 'visual' runs elsewhere"),
    ],
)
def test_replicas_that_cannot_be_are_refused(name: str, replicas: dict[str, int], sentence: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        brain(name, replicas=replicas)
    assert sentence in raised.value.message


def test_relative_weights_lie_beside_the_manifest(tmp_path: Path) -> None:
    text = (
        example("digits").read_text().replace("network: vision/002", "network: vision/002, weights: mine.safetensors")
    )
    (tmp_path / "digits.yaml").write_text(text)
    found = decided(load_manifest(tmp_path / "digits.yaml"), DEFAULTS, tmp_path)
    assert found.region("visual").weights == str(tmp_path / "mine.safetensors")
    assert found.region("auditory").weights is None


def test_packaged_weights_are_found_by_the_networks_name() -> None:
    file = weights_file(brain().region("visual"))
    assert file is not None
    assert file.name == "vision-002.safetensors"
    assert weights_file(brain("pair").region("first")) is None


def test_processes_of_a_followed_brain_are_told_what_to_follow() -> None:
    site = replace(SITE, follow="digits@production", library="mine", options=("--colocate",), sockets={})
    apart = commands(brain(replicas={"visual": 2}), site)
    for command in apart:
        arguments = " ".join(command.arguments)
        assert "--follow digits@production --library mine" in arguments
        assert "--brain" not in arguments
    more = replicas(brain(replicas={"visual": 3}), site, 1)
    known = {command.name: command.socket for command in apart}
    assert [command.socket for command in more if command.name in known] == [
        socket for name, socket in known.items() if name != "coordinator"
    ], "a process keeps its socket"
    assert len({command.socket for command in more}) == len(more)
    (together,) = commands(brain(placement="colocated"), site)
    assert together.arguments[-1] == "--colocate"


def test_a_coordinator_that_hosts_nothing_leaves_colocated_regions_to_processes() -> None:
    colocated = brain(placement="colocated")
    assert hosts(colocated)
    assert not replicas(colocated, SITE, 1)
    assert len(replicas(colocated, SITE, 1, hosting=False)) == 3
    assert not hosts(brain())
