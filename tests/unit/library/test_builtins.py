"""What every library holds from the start, and that putting it in harms nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from encephalon.areas import packaged
from encephalon.areas.evaluation import ASSOCIATIONS
from encephalon.core.contract import Contract
from encephalon.library.brains import load_manifest
from encephalon.library.brains.pinning import contract_read
from encephalon.library.builtins import NETWORKS, WEIGHTS, example
from encephalon.library.builtins import seed as seeding
from encephalon.library.library import Library
from encephalon.library.records import Reference
from encephalon.state import KeyValue, open_key_value, open_objects

RECORDS = {
    "area": ["association", "diagnostics", "graph", "hearing", "vision"],
    "data_set": ["avmnist-sample"],
    "brain": ["digits"],
}
NAMES = [entry["name"] for entry in json.loads(NETWORKS.read_text())]


@asynccontextmanager
async def library_in(folder: Path, namespace: str = "default") -> AsyncIterator[Library]:
    state, objects = f"sqlite:///{folder}/state.db", f"folder:///{folder}/objects"
    async with open_key_value(state) as key_value, open_objects(objects) as bytes_of:
        yield Library(key_value, bytes_of, namespace=namespace)


async def everything(library: Library) -> dict[str, list[int]]:
    """Kind and name to versions."""
    found = {}
    for kind in ("area", "network", "data_set", "scene", "brain", "run"):
        for name in await library.names(kind):
            found[f"{kind}:{name}"] = await library.versions(kind, name)
    return found


EXPECTED = {
    **{f"{kind}:{name}": [1] for kind, names in RECORDS.items() for name in names},
    **{f"network:{name}": [1] for name in NAMES},
}


def test_what_is_written_of_the_networks_is_what_their_files_say() -> None:
    assert NETWORKS.read_text() == packaged.text(), "run python -m encephalon.areas.packaged"


def test_every_file_is_described_and_every_figure_stands_in_the_readme() -> None:
    readme = (WEIGHTS / "README.md").read_text().replace("**", "")
    stems = {path.stem for path in WEIGHTS.glob("*.safetensors")}
    assert {Path(entry["file"]).stem for entry in json.loads(NETWORKS.read_text())} == stems
    assert stems >= {*packaged.METRICS, *packaged.PARENTS, *ASSOCIATIONS.values()}
    for stem, metrics in packaged.METRICS.items():
        for metric, share in metrics.items():
            assert f"{100 * share:.1f}" in readme, (stem, metric)


async def test_a_new_library_is_not_empty(tmp_path: Path) -> None:
    async with library_in(tmp_path) as library:
        await seeding.seed(library)
        assert await everything(library) == EXPECTED
        record = await library.show("network:vision/002")
        assert (record.network.code, record.network.architecture, record.network.format) == (
            "002",
            "LeNet5",
            "safetensors",
        )
        assert record.metrics["accuracy.test"] == 0.53
        contract: Contract = contract_read(record.network.contract)
        assert contract.outputs[0].shape == (-1, 1152)
        assert await library.read(record.network.weights) == (WEIGHTS / "vision-002.safetensors").read_bytes()
        assert [(parent.record.name, parent.role) for parent in record.parents] == [("vision", "area")]
        association = await library.show("network:association/001")
        assert [parent.record.name for parent in association.parents] == ["association", "vision/002", "hearing/002"]
        brain = await library.show("digits@production")
        manifest = json.loads(brain.brain.manifest)
        assert manifest["regions"]["visual"]["weights"] == f"object:sha256:{record.network.weights.sha256}"
        assert brain.brain.networks["visual"] == record.id
        sample = await library.show("data_set:avmnist-sample")
        assert [(split.name, split.samples) for split in sample.data_set.splits] == [("test", 300)]
        assert [one.name for one in sample.data_set.modalities] == ["image", "audio", "label"]
        assert sample.licence.startswith("CC-BY-SA")


async def test_a_library_that_has_it_all_costs_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with library_in(tmp_path) as library:
        await seeding.seed(library)
        calls: list[str] = []

        class Counted:
            def __getattr__(self, name: str) -> object:
                calls.append(name)
                return getattr(inner, name)

        inner: KeyValue = library.key_value
        monkeypatch.setattr(library, "key_value", Counted())
        await seeding.seed(library)
        assert calls == ["get"]


async def test_what_users_changed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with library_in(tmp_path) as library:
        await seeding.seed(library)
        await library.drop_alias("brain", "digits", "production")
        await library.remove("brain:digits@1")
        await seeding.seed(library)
        assert "digits" not in await library.names("brain")
        monkeypatch.setattr(seeding, "FORM", "another")
        await seeding.seed(library)
        assert await library.versions("brain", "digits") == [2]


async def test_another_release_adds_what_is_new_and_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with library_in(tmp_path) as library:
        await seeding.seed(library)
        mine = await library.show("digits@1")
        mine.description = "mine"
        await library.add(mine, alias="production")
        monkeypatch.setattr(seeding, "FORM", "another")
        await seeding.seed(library)
        assert await library.versions("brain", "digits") == [1, 2]
        assert (await library.resolve("digits@production")).selector == 2

        monkeypatch.setattr(seeding, "FORM", "a third")
        changed = [
            {**entry, "description": "retrained"} if entry["name"] == "vision/002" else entry
            for entry in json.loads(NETWORKS.read_text())
        ]
        path = tmp_path / "networks.json"
        path.write_text(json.dumps(changed))
        for module in ("seed", "drafts"):
            monkeypatch.setattr(f"encephalon.library.builtins.{module}.NETWORKS", path)
        await seeding.seed(library)
        assert await library.versions("network", "vision/002") == [1, 2]
        assert await library.versions("network", "hearing/002") == [1]
        assert await library.versions("brain", "digits") == [1, 2, 3]
        assert (await library.show("digits@3")).brain.networks["visual"].version == 2
        assert (await library.resolve("digits@production")).selector == 2
        # The first release still finds its own marker.
        monkeypatch.undo()
        await seeding.seed(library)
        assert await library.versions("brain", "digits") == [1, 2, 3]


async def test_many_at_once_write_one_version_each(tmp_path: Path) -> None:
    async with library_in(tmp_path) as one, library_in(tmp_path) as two, library_in(tmp_path) as three:
        await asyncio.gather(*(seeding.seed(library) for library in (one, two, three)))
        assert await everything(one) == EXPECTED


async def test_namespaces_are_apart(tmp_path: Path) -> None:
    async with library_in(tmp_path) as one, library_in(tmp_path, "other") as other:
        await seeding.seed(one)
        assert await everything(other) == {}
        await seeding.seed(other)
        assert await everything(other) == EXPECTED


async def test_without_pyarrow_the_sample_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with library_in(tmp_path) as library:
        with monkeypatch.context() as patch:
            patch.setattr("importlib.util.find_spec", lambda name: None)
            await seeding.seed(library)
        assert await everything(library) == {name: [1] for name in EXPECTED if not name.startswith("data_set:")}
        await seeding.seed(library)
        assert await everything(library) == EXPECTED


PROGRAM = """
import asyncio, sys
from encephalon.library.builtins.seed import seed
from encephalon.library.library import Library
from encephalon.state import open_key_value, open_objects

async def main(folder):
    state, objects = f"sqlite:///{folder}/state.db", f"folder:///{folder}/objects"
    async with open_key_value(state) as key_value, open_objects(objects) as bytes_of:
        print("begins", flush=True)
        await seed(Library(key_value, bytes_of))

asyncio.run(main(sys.argv[1]))
"""


SLOW = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("delays", [[0.05, 0.2], pytest.param([at / 50 for at in range(50)], marks=SLOW)])
async def test_killed_at_any_moment_it_goes_on(tmp_path: Path, delays: list[float]) -> None:
    for delay in delays:
        folder = tmp_path / str(delay)
        folder.mkdir()
        for _ in range(2):
            await killed(folder, delay)
        async with library_in(folder) as library:
            await seeding.seed(library)
            assert await everything(library) == EXPECTED
            assert (await library.resolve("digits@production")).selector == 1
            for name in NAMES:
                await library.read((await library.show(Reference(name, kind="network"))).network.weights)


async def killed(folder: Path, delay: float) -> None:
    """Begins to put everything in, and is killed after so many seconds."""
    process = subprocess.Popen(  # noqa: ASYNC220 - starting one takes a millisecond
        [sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    await asyncio.to_thread(process.stdout.readline)
    await asyncio.sleep(delay)  # the moment of its death, not a wait for anything
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.wait)
    process.stdout.close()


def test_examples_are_found() -> None:
    assert load_manifest(example("digits")).name == "digits"
