"""What all workers of a run must agree about. The first one says it; who says something else is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from encephalon.api.parameter_server.v1.parameter_server_pb2 import Tensor
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import FailedPrecondition, InvalidInput

__all__ = ["Model"]

MOST_TENSORS = 1 << 16
MOST_RANK = 8
MOST_ELEMENTS = 1 << 40
MOST_SAMPLES = 1 << 48


@dataclass(frozen=True, slots=True)
class Model:
    tensors: tuple[Tensor, ...]
    digest: str
    samples: int
    """Of the training split."""
    evaluation: Mapping[str, int]
    """Samples by purpose."""

    @classmethod
    def of(cls, request: pb.JoinRequest) -> Model:
        """InvalidInput for what no model can be."""
        if not 0 < len(request.tensors) <= MOST_TENSORS:
            raise InvalidInput(
                f"worker '{request.member.worker}' would learn {len(request.tensors)} tensors, expected 1 to "
                f"{MOST_TENSORS}"
            )
        for tensor in request.tensors:
            _check(tensor)
        counts = {"training": request.training_samples, **request.evaluation_samples}
        for purpose, count in counts.items():
            if count > MOST_SAMPLES:
                raise InvalidInput(f"{count} {purpose} samples are more than any data set has")
        if not request.training_samples:
            raise InvalidInput(f"worker '{request.member.worker}' has no samples to learn from")
        return cls(
            tuple(request.tensors), request.model_digest, request.training_samples, dict(request.evaluation_samples)
        )

    def check(self, other: Model, worker: str) -> None:
        """FailedPrecondition, with the first difference, when the worker would train something else."""
        if (difference := _difference(self, other)) is not None:
            raise FailedPrecondition(
                f"worker '{worker}' would train another model than this run: {difference}; "
                "start it with the run's brain, data set and version of Encephalon",
                worker=worker,
            )


def agrees(tensors: Sequence[Tensor], digest: str, model: Model) -> str | None:
    """The first difference to what a run began with; None when it is the same."""
    return _of_tensors(tensors, model.tensors) or _of_digest(digest, model.digest)


def _difference(ours: Model, theirs: Model) -> str | None:
    return (
        _of_tensors(ours.tensors, theirs.tensors)
        or _of_count("training", ours.samples, theirs.samples)
        or next(
            (
                sentence
                for purpose in sorted({*ours.evaluation, *theirs.evaluation})
                if (sentence := _of_count(purpose, ours.evaluation.get(purpose, 0), theirs.evaluation.get(purpose, 0)))
            ),
            None,
        )
        or _of_digest(ours.digest, theirs.digest)
    )


def _of_tensors(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> str | None:
    for number, (mine, yours) in enumerate(zip_longest(ours, theirs), 1):
        if mine is None:
            return f"it has a tensor '{yours.name}' that the run does not have"
        if yours is None:
            return f"it lacks the tensor '{mine.name}'"
        if mine.name != yours.name:
            return f"its tensor {number} is '{yours.name}' and not '{mine.name}'"
        if list(mine.shape) != list(yours.shape):
            return f"its tensor '{mine.name}' has shape {list(yours.shape)} and not {list(mine.shape)}"
        if mine.kind != yours.kind:
            return f"its tensor '{mine.name}' is a {_kind(yours)} and not a {_kind(mine)}"
    return None


def _of_count(purpose: str, ours: int, theirs: int) -> str | None:
    return None if ours == theirs else f"it has {theirs} {purpose} samples and not {ours}"


def _of_digest(ours: str, theirs: str) -> str | None:
    if ours == theirs:
        return None
    return f"the digest of its networks, weights and data is {theirs[:12]!r} and not {ours[:12]!r}"


def _kind(tensor: Tensor) -> str:
    return "buffer" if tensor.kind == Tensor.KIND_BUFFER else "parameter"


def _check(tensor: Tensor) -> None:
    if not tensor.name or tensor.kind not in (Tensor.KIND_PARAMETER, Tensor.KIND_BUFFER):
        raise InvalidInput(f"tensor '{tensor.name}' needs a name and a kind", tensor=tensor.name)
    elements = 1
    for size in tensor.shape:
        elements *= size
    if len(tensor.shape) > MOST_RANK or not 0 < elements <= MOST_ELEMENTS:
        raise InvalidInput(
            f"tensor '{tensor.name}' has shape {list(tensor.shape)[:10]}; expected at most {MOST_RANK} dimensions with "
            f"1 to {MOST_ELEMENTS} elements",
            tensor=tensor.name,
        )
