"""What a run measured, step by step: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from google.protobuf import json_format

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import Corrupt

__all__ = ["MOST_BYTES", "History"]

MOST_BYTES: Final = 16 << 20
"""A history is written whole with every checkpoint, so it must stay small however long a run is."""

Line = pb.StepMetrics | pb.Evaluation


class History:
    """Steps and evaluations, in the order in which they were added; written as they come, so that `dump` costs nothing.

    A history that grows beyond `most` bytes keeps only every second step from then on, then every fourth, and so on:
    the same curves in half the resolution.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._size = 0
        self._every = 1
        self._lines: list[tuple[int, bool, bytes]] = []
        """Version, whether it is an evaluation, and the line."""

    @classmethod
    def read(cls, data: bytes, most: int = MOST_BYTES) -> History:
        """Of what `dump` gave. Corrupt, with the line, when it is something else."""
        history = cls(most)
        for number, line in enumerate(data.splitlines(), 1):
            try:
                history.add(_read(line))
            except (ValueError, KeyError, TypeError, RecursionError, json_format.ParseError) as error:
                raise Corrupt(f"line {number} of the history cannot be read: {error}", line=number) from error
        return history

    def add(self, line: Line) -> None:
        judged = isinstance(line, pb.Evaluation)
        if not judged and line.version % self._every:
            return
        text = _written("evaluation" if judged else "step", line)
        self._lines.append((line.version, judged, text))
        self._size += len(text)
        while self._size > self._most and self._every < line.version:
            self._every *= 2
            self._keep([each for each in self._lines if each[1] or each[0] % self._every == 0])

    def cut(self, version: int) -> None:
        """Forgets what came after this version, for a run that goes back to a checkpoint."""
        self._keep([line for line in self._lines if line[0] <= version])

    def dump(self) -> bytes:
        return b"".join(text for _, _, text in self._lines)

    @property
    def steps(self) -> list[pb.StepMetrics]:
        return [line for line in self if isinstance(line, pb.StepMetrics)]

    @property
    def evaluations(self) -> list[pb.Evaluation]:
        return [line for line in self if isinstance(line, pb.Evaluation)]

    def __iter__(self) -> Iterator[Line]:
        return (_read(text) for _, _, text in self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def _keep(self, lines: list[tuple[int, bool, bytes]]) -> None:
        self._lines = lines
        self._size = sum(len(text) for _, _, text in lines)


def _written(what: str, line: Line) -> bytes:
    value = json_format.MessageToDict(line, preserving_proto_field_name=True)
    return json.dumps({what: value}, separators=(",", ":")).encode() + b"\n"


def _read(line: bytes) -> Line:
    (what, value), *more = dict(json.loads(line)).items()
    if more or what not in ("step", "evaluation"):
        raise ValueError(f"it is of '{what}', expected step or evaluation")
    return json_format.ParseDict(value, pb.Evaluation() if what == "evaluation" else pb.StepMetrics())
