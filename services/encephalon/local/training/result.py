"""How a run ended, in the words and units of who asked for it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from encephalon.api.training.v1.training_pb2 import Evaluation, RunState, RunStatus
from encephalon.core.errors import FailedPrecondition, NotFound
from encephalon.training.runs import RunSettings

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["Judged", "TrainingResult", "boards_of", "pictures_of", "plain", "result_of", "state_name"]


ENDINGS: Final = (".png", ".svg")
BOARD: Final = "tensorboard/"


@dataclass(frozen=True, slots=True)
class Judged:
    """One evaluation: `loss` is the mean per sample, `accuracy` of each output 0 to 1."""

    epoch: int
    step: int
    samples: int
    loss: float
    accuracy: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """`state` is "succeeded", "stopped" or "failed", and `sentence` says why. `steps` are updates of the parameters,
    `seconds` those in which the run has been learning, `bytes` those that went between workers and shards.

    `loss` and `accuracy` (0 to 1) are of the test split, else of the validation of what the run leaves behind (the best
    with `patience`, else the last), else the loss is that of the last update; None where nothing was judged. `made` are
    references into the library: networks by region, "brain", "run". `pictures` are files by name.
    """

    run: str
    state: str
    sentence: str
    steps: int
    epochs: int
    samples: int
    seconds: float
    bytes: int
    loss: float | None
    accuracy: float | None
    validation: tuple[Judged, ...] = ()
    test: Judged | None = None
    made: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.seconds if self.seconds > 0 else 0.0

    def checked(self) -> TrainingResult:
        """Itself; FailedPrecondition, with how to go on, when the run has failed."""
        if self.state == "failed":
            raise FailedPrecondition(
                f"run '{self.run}' failed: {self.sentence.rstrip('.')}; when the cause is gone, "
                f"`encephalon runs resume {self.run}` goes on from its last checkpoint",
                run=self.run,
            )
        return self


def state_name(state: RunState.State.ValueType) -> str:
    """As a word: "running"."""
    return RunState.State.Name(state).removeprefix("STATE_").lower()


def result_of(settings: RunSettings, state: RunState, last: RunStatus | None = None) -> TrainingResult:
    """`last` is what was told last of the run, if it was watched."""
    validation = tuple(judged(each) for each in state.evaluations if each.purpose != "test")
    test = judged(state.test) if state.HasField("test") else None
    final = test or kept_one(settings, validation)
    told_loss = last.last.loss if last is not None and last.HasField("last") else None
    steps = max([state.checkpoint.version, *(each.version for each in state.evaluations), last.version if last else 0])
    return TrainingResult(
        run=state.run,
        state=state_name(state.state),
        sentence=state.sentence,
        steps=steps,
        epochs=settings.epochs,
        samples=max(state.samples, last.samples if last else 0),
        seconds=state.seconds or (last.seconds if last else 0.0),
        bytes=max(state.bytes, last.bytes if last else 0),
        loss=final.loss if final else told_loss,
        accuracy=main_accuracy(settings, final),
        validation=validation,
        test=test,
        made=dict(sorted(state.made.items())),
    )


def judged(found: Evaluation) -> Judged:
    return Judged(found.epoch, found.version, found.samples, found.loss, dict(sorted(found.accuracy.items())))


def kept_one(settings: RunSettings, validation: Sequence[Judged]) -> Judged | None:
    """That of the parameters which the run leaves behind: the best ones if it was to look for them, else the last."""
    if settings.patience is not None:
        return min(validation, key=lambda each: each.loss, default=None)
    return validation[-1] if validation else None


def main_accuracy(settings: RunSettings, found: Judged | None) -> float | None:
    """Of the output whose loss weighs most; None where no output has classes."""
    if found is None or not found.accuracy:
        return None
    weight = settings.targets
    return found.accuracy[max(found.accuracy, key=lambda output: weight.get(output, 0.0))]


async def files_of(library: Library, made: Mapping[str, str], run: Path) -> dict[str, Path]:
    """What a run has left for people, by name: in the library, else in `run`, its own folder."""
    try:
        record = await library.show(made["run"], "run")
    except (KeyError, NotFound):  # it left none, or they were removed
        return await asyncio.to_thread(lying_in, run)
    return {name: await library.fetch(item) for name, item in sorted(record.run.artefacts.items())}


async def pictures_of(library: Library, made: Mapping[str, str], folder: Path, run: Path) -> dict[str, Path]:
    """Of a run, whose own folder is `run`, as files in `folder`."""
    found = await files_of(library, made, run)
    return {name: copied(path, folder / name) for name, path in found.items() if name.endswith(ENDINGS)}


async def boards_of(library: Library, made: Mapping[str, str], folder: Path, run: Path) -> None:
    """Copies TensorBoard's event files of a run into a folder of its name in `folder`."""
    for name, path in (await files_of(library, made, run)).items():
        if name.startswith(BOARD):
            copied(path, folder / run.name / name.removeprefix(BOARD))


def lying_in(folder: Path) -> dict[str, Path]:
    paths = [*folder.glob("*.png"), *folder.glob(f"{BOARD}*")]
    return {path.relative_to(folder).as_posix(): path for path in sorted(paths)}


def copied(source: Path, target: Path) -> Path:
    if source == target:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, target))


def plain(result: TrainingResult) -> dict[str, Any]:
    """As JSON has it."""
    return {
        "run": result.run,
        "state": result.state,
        "sentence": result.sentence,
        "steps": result.steps,
        "samples": result.samples,
        "samples_per_second": round(result.samples_per_second, 3),
        "seconds": round(result.seconds, 3),
        "loss": result.loss,
        "accuracy": result.accuracy,
        "bytes": result.bytes,
        "validation": [plain_judged(each) for each in result.validation],
        "test": plain_judged(result.test) if result.test else None,
        "made": dict(result.made),
        "pictures": {name: str(path) for name, path in result.pictures.items()},
    }


def plain_judged(found: Judged) -> dict[str, Any]:
    return {
        "epoch": found.epoch,
        "step": found.step,
        "samples": found.samples,
        "loss": found.loss,
        "accuracy": dict(found.accuracy),
    }
