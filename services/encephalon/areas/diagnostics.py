"""Networks that learn nothing, for measuring and for tests. Knows numpy only, so that a region of them starts without
torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from encephalon.areas.arguments import construct
from encephalon.areas.network import Arrays, Network
from encephalon.core.contract import Contract
from encephalon.core.errors import Internal, InvalidInput
from encephalon.library.areas import find_network

__all__ = ["Delay", "Faulty", "Identity", "Join", "load"]

Per = Literal["batch", "row"]
Fault = Literal["none", "raise", "wrong_shape", "wrong_rows", "wrong_datatype", "missing_output"]


class Identity:
    """`y = x + offset`; without an offset the very same array. The offset tells two versions apart."""

    inline = True

    def __init__(self, offset: float = 0.0) -> None:
        self.contract: Contract = find_network("diagnostics", "001")
        self._offset = np.float32(offset)

    def __call__(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        return {"y": np.add(x, self._offset) if self._offset else x}


class Join:
    """`y = a + b`; a row of `a` or `b` that is not present counts as zeros."""

    inline = True

    def __init__(self) -> None:
        self.contract: Contract = find_network("diagnostics", "002")

    def __call__(self, inputs: Arrays) -> Arrays:
        parts = [part for part in (self._part(inputs, "a"), self._part(inputs, "b")) if part is not None]
        if not parts:
            raise InvalidInput("neither 'a' nor 'b' is present; send at least one")
        if len(parts) == 1:
            return {"y": parts[0]}
        if parts[0].shape != parts[1].shape:
            shapes = f"{list(parts[0].shape)} and {list(parts[1].shape)}"
            raise InvalidInput(f"'a' and 'b' have shapes {shapes}; send them equally wide")
        return {"y": np.add(*parts)}

    @staticmethod
    def _part(inputs: Arrays, name: str) -> Any:
        value, present = inputs.get(name), inputs.get(f"{name}.present")
        if value is None or present is None or present.all():
            return value
        return np.where(present[:, None], value, np.float32(0)) if present.any() else None


class Delay:
    """`y = x`, after `delay_ms` milliseconds per batch or per row: a network whose cost is known.

    Setting `cancelled` ends the waiting at once.
    """

    def __init__(self, delay_ms: float = 10.0, per: Per = "batch") -> None:
        if per not in get_args(Per):
            raise ValueError(f"per is '{per}', expected {' or '.join(get_args(Per))}")
        if not 0 <= delay_ms <= 600_000:
            raise ValueError(f"delay_ms is {delay_ms}, expected 0 to 600000")
        self.contract: Contract = find_network("diagnostics", "003")
        self.cancelled = threading.Event()
        self._seconds = delay_ms / 1_000
        self._per = per

    def __call__(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        self.cancelled.wait(self._seconds * (len(x) if self._per == "row" else 1))
        return {"y": x}


class Faulty:
    """`y = x`, but does what `fault` says for every batch, or only for those in which a value equals `trigger`."""

    def __init__(self, fault: Fault = "raise", trigger: float | None = None) -> None:
        if fault not in get_args(Fault):
            raise ValueError(f"fault is '{fault}', expected one of {', '.join(get_args(Fault))}")
        self.contract: Contract = find_network("diagnostics", "004")
        self._fault = fault
        self._trigger = None if trigger is None else np.float32(trigger)

    def __call__(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        if self._trigger is None or bool((x == self._trigger).any()):
            return self._fail(x)
        return {"y": x}

    def _fail(self, x: Any) -> Arrays:
        match self._fault:
            case "raise":
                raise Internal("diagnostics/004 failed, as it was told to", network="diagnostics/004")
            case "wrong_shape":
                return {"y": x.ravel()}
            case "wrong_rows":
                return {"y": np.concatenate([x, x])}
            case "wrong_datatype":
                return {"y": x.astype(np.float64)}
            case "missing_output":
                return {}
            case _:
                return {"y": x}


NETWORKS: Mapping[str, Callable[..., Network]] = {
    "001": Identity,
    "002": Join,
    "003": Delay,
    "004": Faulty,
}


def load(code: str, weights: Path | bytes | None, arguments: Mapping[str, Any]) -> Network:
    """Raises `InvalidInput` for weights, which these networks do not have, and for arguments that do not fit."""
    if weights is not None:
        raise InvalidInput(f"diagnostics/{code} has no weights; leave them out", network=f"diagnostics/{code}")
    return construct(f"diagnostics/{code}", NETWORKS[code], arguments)
