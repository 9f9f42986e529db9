"""What a finished run leaves in the library: its record, networks that learned, the next brain, and their lineage."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from encephalon.api.library.v1 import library_pb2 as library_pb
from encephalon.api.parameter_server.v1 import parameter_server_pb2 as parameter_pb
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.areas import load_network, packaged_weights
from encephalon.areas import weights as weight_files
from encephalon.core.errors import FailedPrecondition, NotFound
from encephalon.learning.brain import load_brain
from encephalon.learning.checkpoint import Content, Held, piece_of, write_piece
from encephalon.learning.layout import planned
from encephalon.library.brains.releases import brain_of
from encephalon.library.datasets import add_arrays
from encephalon.library.library import Library
from encephalon.library.records import Reference
from encephalon.training.recording import History, __main__
from encephalon.training.recording.finish import finish
from encephalon.training.runs import RunSettings, keys_of
from tests.followed import Stores, add_brain, library_in

NAMESPACE = "lab"
quick = pytest.mark.usefixtures("undrawn")
TEXT = """
brain: two
inputs: {x: {datatype: FP32, shape: [-1, 6]}}
regions:
  first: {network: diagnostics/005, arguments: {inputs: 6, outputs: 4, width: 5, seed: 1}}
  second: {network: diagnostics/005, arguments: {inputs: 4, outputs: 3, width: 5, seed: 2}}
pathways: [{from: x, to: first.x}, {from: first.y, to: second.x}]
outputs: {class: second.probabilities, also: first.probabilities}
"""


@dataclass
class Lab:
    """A library with a brain and a data set, and runs that are over."""

    stores: Stores
    library: Library
    folder: Path
    brain: str = "brain:two@1"

    async def run(self, name: str = "two-1", *, best: bool = False, **changes: object) -> dict[str, torch.Tensor]:
        """Writes settings, checkpoints and state as a control node does; the tensors that are to be kept."""
        values = {"run": name, "brain": self.brain, "data": "data_set:points@1", "learn": ("second",), **changes}
        settings = RunSettings.checked(**values)
        state = pb.RunState(run=name, state=pb.RunState.STATE_SUCCEEDED, seconds=12.5, samples=960, bytes=4096)
        state.started_time.FromSeconds(1_800_000_000)
        state.changed_time.FromSeconds(1_800_000_020)
        tensors = {each.name: each for each in (await load_brain(self.library, self.brain, settings)).tensors()}
        drawn = {each.name: torch.randn(tuple(each.shape)) for each in tensors.values()}
        if best:
            drawn_last = {key: value + 1 for key, value in drawn.items()}
            state.best.CopyFrom(await self._checkpoint(f"{name}/best", 6, tensors, drawn))
            state.checkpoint.CopyFrom(await self._checkpoint(f"{name}/last", 10, tensors, drawn_last))
        else:
            state.checkpoint.CopyFrom(await self._checkpoint(f"{name}/last", 10, tensors, drawn))
        history = History()
        for version in range(1, 11):
            history.add(step(version))
        for version in (6, 10):
            history.add(judged(version, 0.5 + version / 100))
        state.evaluations.extend(history.evaluations)
        state.test.CopyFrom(judged(6 if best else 10, 0.75, "test"))
        state.history_key = f"training/{name}/history"
        await self.objects.put(state.history_key, history.dump())
        keys = keys_of(NAMESPACE, name)
        await self.library.key_value.put(keys[0], settings.model_dump_json().encode())
        await self.library.key_value.put(keys[1], state.SerializeToString())
        return drawn

    async def changed(self, name: str, **fields: object) -> None:
        key = keys_of(NAMESPACE, name)[1]
        entry = await self.library.key_value.get(key)
        assert entry is not None
        state = pb.RunState.FromString(entry.value)
        state.MergeFrom(pb.RunState(**fields))
        await self.library.key_value.put(key, state.SerializeToString())

    @property
    def objects(self):  # type: ignore[no-untyped-def]
        return self.library.objects

    async def finish(self, name: str = "two-1", **options: bytes) -> dict[str, str]:
        store = self.library.key_value
        return await finish(
            store, self.objects, namespace=NAMESPACE, run=name, folder=self.folder / "out" / name, **options
        )

    async def count(self) -> int:
        return len([each async for each in self.library.ls()])

    async def _checkpoint(
        self,
        key: str,
        version: int,
        tensors: Mapping[str, parameter_pb.Tensor],
        values: Mapping[str, torch.Tensor],
    ) -> parameter_pb.Checkpoint:
        layout = planned(list(tensors.values()), 1)
        flat = {
            number: values[layout.tensors[cut.tensor].name].reshape(-1)[cut.start : cut.stop]
            for number, cut in enumerate(layout.slices)
        }
        path = self.folder / "piece"
        written = await asyncio.to_thread(write_piece, path, layout, Content(Held(version), flat))
        await self.objects.upload(key, path, sha256=written.sha256)
        path.unlink()
        piece = piece_of(key, written, layout, list(flat))
        return parameter_pb.Checkpoint(version=version, tensors=layout.tensors, pieces=[piece])


def step(version: int) -> pb.StepMetrics:
    return pb.StepMetrics(
        version=version,
        epoch=(version - 1) // 5,
        at_seconds=version,
        seconds=1.0,
        samples=96,
        loss=2.0 / version,
        gradient_norm=1.0,
        learning_rate=1e-3,
        shares={"worker-0": 64, "worker-1": 32},
        compute_seconds={"worker-0": 0.5, "worker-1": 0.5},
    )


def judged(version: int, accuracy: float, purpose: str = "validation") -> pb.Evaluation:
    return pb.Evaluation(
        version=version,
        purpose=purpose,
        samples=50,
        loss=1 - accuracy,
        accuracy={"class": accuracy, "also": 0.1},
        at_seconds=11,
    )


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr("encephalon.training.recording.finish._drawn", lambda *_: {})


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    torch.set_num_threads(1)
    stores = Stores(tmp_path)
    async with library_in(stores) as library:
        await add_brain(library, TEXT)
        x = np.zeros((20, 6), np.float32)
        await add_arrays(library, "points", {"x": x, "label": np.arange(20) % 3}, {"train": slice(None)})
        yield Lab(stores, library, tmp_path)


async def test_a_run_becomes_networks_a_brain_and_a_record_of_itself(lab: Lab) -> None:
    drawn = await lab.run()
    made = await lab.finish()
    assert made == {"run": "run:two-1@1", "second": "network:two-second@1", "brain": "brain:two@2"}

    network = await lab.library.show(made["second"])
    assert network.metrics == {"accuracy.validation": pytest.approx(0.6), "accuracy.test": pytest.approx(0.75)}
    assert {(parent.role, parent.record.name) for parent in network.parents} == {
        ("run", "two-1"),
        ("data_set", "points"),
    }
    data = await lab.library.read(network.network.weights)
    read = weight_files.read(data)
    assert (read.architecture, read.version) == ("diagnostics/005", "two-1.10")
    assert all(bool((read.tensors[name] == drawn[f"second/{name}"]).all()) for name in read.tensors)
    loaded = load_network("diagnostics", "005", data, json.loads(network.network.arguments))
    assert loaded({"x": np.zeros((2, 4), np.float32)})["probabilities"].shape == (2, 3)

    brain = await lab.library.show(made["brain"])
    assert brain_of(brain).region("second").weights == f"object:sha256:{network.network.weights.sha256}"
    assert brain_of(brain).region("first").weights is None
    assert [parent.role for parent in brain.parents] == ["network", "run", "data_set", "previous"]
    assert brain.metrics["loss.test"] == pytest.approx(0.25)
    # The settings name no target: it is the first output of the brain, and so is the accuracy that has no name.
    assert brain.metrics["accuracy.test"] == brain.metrics["accuracy.test.class"] == pytest.approx(0.75)
    assert brain.metrics["accuracy.test.also"] == pytest.approx(0.1)

    run = await lab.library.show(made["run"])
    assert sorted(run.run.artefacts) == [
        "curves.png",
        "history.jsonl",
        "shares.png",
        "tensorboard/events.out.tfevents.1800000000.encephalon",
    ]
    assert run.run.state == library_pb.Run.STATE_SUCCEEDED
    assert run.run.ended_time.seconds - run.run.started_time.seconds == 20
    assert RunSettings.read(run.run.settings.encode()).run == "two-1"
    assert run.metrics["samples_per_second"] == pytest.approx(960 / 12.5)
    assert (run.metrics["steps"], run.metrics["bytes"], run.metrics["workers"]) == (10, 4096, 2)
    assert len(History.read(await lab.library.read(run.run.artefacts["history.jsonl"]))) == 12
    assert (lab.folder / "out" / "two-1" / "curves.png").read_bytes().startswith(b"\x89PNG")


@quick
async def test_the_lineage_goes_from_brain_and_data_over_the_run_to_the_next_brain(lab: Lab) -> None:
    await lab.run()
    await lab.finish()
    lab.brain = "brain:two@2"
    await lab.run("two-2")
    made = await lab.finish("two-2")
    assert made == {"run": "run:two-2@1", "second": "network:two-second@2", "brain": "brain:two@3"}
    graph = await lab.library.lineage("brain:two@3")
    edges = {(str(edge.parent), str(edge.child), edge.role) for edge in graph.edges}
    assert edges >= {
        ("brain:two@1", "run:two-1@1", "brain"),
        ("data_set:points@1", "run:two-1@1", "data_set"),
        ("run:two-1@1", "network:two-second@1", "run"),
        ("network:two-second@1", "brain:two@2", "network"),
        ("brain:two@2", "run:two-2@1", "brain"),
        ("network:two-second@1", "run:two-2@1", "network"),
        ("network:two-second@1", "network:two-second@2", "network"),
        ("network:two-second@2", "brain:two@3", "network"),
        ("brain:two@2", "brain:two@3", "previous"),
    }
    order = [str(reference) for reference in sorted(graph.nodes, key=str)]
    assert not (set(order) - {str(edge.parent) for edge in graph.edges} - {"brain:two@3"})
    assert await lab.library.verify(quick=True) == []


@quick
async def test_two_that_do_it_at_once_make_it_once(lab: Lab) -> None:
    await lab.run()
    first, second = await asyncio.gather(lab.finish(), lab.finish())
    assert first == second == {"run": "run:two-1@1", "second": "network:two-second@1", "brain": "brain:two@2"}


@quick
async def test_done_twice_it_makes_nothing_new(lab: Lab) -> None:
    await lab.run()
    made = await lab.finish()
    count = await lab.count()
    await lab.changed("two-1", sentence="written again, later")
    assert await lab.finish() == made
    again = await asyncio.gather(lab.finish(), lab.finish())
    assert again == [made, made]
    assert await lab.count() == count
    # Another version that somebody has put in between does not count either.
    brain = await lab.library.show("brain:two@1")
    brain.description = "by hand"
    await lab.library.add(brain)
    assert await lab.finish() == made


@quick
@pytest.mark.parametrize("point", ["run", "network"])
async def test_it_goes_on_where_it_was_killed(lab: Lab, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from encephalon.training.recording import finish as module

    real, placed = module.placed, []

    async def dying(library: Library, writer: object, draft: library_pb.Record, kind: str) -> library_pb.Record:
        record = await real(library, writer, draft, kind)  # type: ignore[arg-type]
        placed.append(kind)
        if kind == point:
            raise asyncio.CancelledError
        return record

    await lab.run()
    monkeypatch.setattr(module, "placed", dying)
    with pytest.raises(asyncio.CancelledError):
        await lab.finish()
    monkeypatch.setattr(module, "placed", real)
    assert placed[-1] == point
    assert await lab.finish() == {"run": "run:two-1@1", "second": "network:two-second@1", "brain": "brain:two@2"}


@quick
async def test_the_best_checkpoint_is_kept_and_judged(lab: Lab) -> None:
    drawn = await lab.run(best=True, patience=2)
    made = await lab.finish()
    network = await lab.library.show(made["second"])
    read = weight_files.read(await lab.library.read(network.network.weights))
    assert all(bool((read.tensors[name] == drawn[f"second/{name}"]).all()) for name in read.tensors)
    assert network.metrics["accuracy.validation"] == pytest.approx(0.56)
    assert (await lab.library.show(made["run"])).metrics["steps"] == 10


@quick
@pytest.mark.parametrize("state", ["FAILED", "STOPPED"])
async def test_a_run_that_rests_has_only_its_own_record(lab: Lab, state: str) -> None:
    await lab.run()
    await lab.changed("two-1", state=pb.RunState.State.Value(f"STATE_{state}"), sentence="so it was.")
    assert await lab.finish() == {"run": "run:two-1@1"}
    record = await lab.library.show("run:two-1")
    assert library_pb.Run.State.Name(record.run.state) == f"STATE_{state}"
    assert record.description.endswith("so it was.")
    # Resumed, it makes the rest, and a record of its own end.
    await lab.changed("two-1", state=pb.RunState.STATE_SUCCEEDED)
    assert await lab.finish() == {"run": "run:two-1@2", "second": "network:two-second@1", "brain": "brain:two@2"}


@quick
async def test_what_cannot_be_recorded_is_said(lab: Lab) -> None:
    with pytest.raises(NotFound, match="no run 'two-1' in namespace 'lab'"):
        await lab.finish()
    drawn = await lab.run(patience=2)
    drawn["second/layers.0.weight"][0, 0] = float("nan")
    tensors = {name: parameter_pb.Tensor(name=name, shape=value.shape) for name, value in drawn.items()}
    bad = await lab._checkpoint("bad", 11, tensors, drawn)
    await lab.changed("two-1", best=bad)
    with pytest.raises(FailedPrecondition, match=r"'second/layers.0.weight' of the checkpoint .* not finite"):
        await lab.finish()
    with pytest.raises(NotFound):
        await lab.library.show("brain:two@2")


async def test_without_matplotlib_what_was_learned_is_kept_all_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "encephalon.training.recording.curves", None)
    await lab.run()
    made = await lab.finish(history=b"")
    assert "brain" in made
    assert list((await lab.library.show(made["run"])).run.artefacts) == ["history.jsonl"]


@quick
async def test_a_network_with_running_statistics_and_a_record_of_its_own(lab: Lab) -> None:
    async with lab.library.writing("add") as writer:
        weights = await writer.put_file(packaged_weights("vision", "002"))
        network = load_network("vision", "002")
        body = library_pb.Network(area="vision", code="002", architecture="x", weights=weights, format="safetensors")
        id = library_pb.Reference(kind=library_pb.KIND_NETWORK, name="eyes")
        await writer.commit(library_pb.Record(id=id, network=body, licence="MIT"))
    assert "features" in {spec.name for spec in network.contract.outputs}
    await add_brain(
        lab.library,
        "brain: see\ninputs: {image: {datatype: UINT8, shape: [-1, -1, -1]}}\n"
        "regions: {eye: {weights: 'library:eyes'}}\npathways: [{from: image, to: eye.image}]\n"
        "outputs: {digit: eye.probabilities}\n",
    )
    lab.brain = "brain:see@1"
    drawn = await lab.run("see-1", learn=())
    made = await lab.finish("see-1")
    assert made == {"run": "run:see-1@1", "eye": "network:eyes@2", "brain": "brain:see@2"}
    record = await lab.library.show(made["eye"])
    read = weight_files.read(await lab.library.read(record.network.weights))
    before = weight_files.read(packaged_weights("vision", "002"))
    assert read.tensors.keys() == before.tensors.keys()
    travelled = {name.partition("/")[2] for name in drawn}
    for name, tensor in read.tensors.items():
        expected = drawn[f"eye/{name}"] if name in travelled else before.tensors[name]
        assert bool((tensor == expected).all()), name
    assert (record.licence, [parent.role for parent in record.parents]) == ("MIT", ["run", "data_set", "network"])
    assert str(Reference.of(record.parents[-1].record)) == "network:eyes@1"


def words(lab: Lab, run: str) -> list[str]:
    return [
        *("--run", run, "--namespace", NAMESPACE, "--folder", str(lab.folder / "out")),
        *("--state", lab.stores.state, "--objects", lab.stores.objects),
    ]


@quick
async def test_the_command_says_what_was_made(lab: Lab) -> None:
    await lab.run()
    history = lab.folder / "given.jsonl"
    history.write_bytes(b"")
    options = __main__.parser().parse_args([*words(lab, "two-1"), "--history", str(history)])
    assert (await __main__.finished(options))["brain"] == "brain:two@2"
    assert (lab.folder / "out" / "history.jsonl").read_bytes() == b""


@quick
async def test_a_folder_that_takes_nothing_does_not_matter(lab: Lab) -> None:
    await lab.run()
    (lab.folder / "out").write_text("a file, where the folder should be")
    assert "brain" in await lab.finish()


@pytest.mark.slow
async def test_as_a_process_it_prints_json(lab: Lab) -> None:
    await lab.run()
    for run, key in (("two-1", "made"), ("other", "error")):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "encephalon.training.recording", *words(lab, run), stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await asyncio.wait_for(process.communicate(), 50)
        assert list(json.loads(printed)) == [key]
        assert process.returncode == (0 if key == "made" else 1)
