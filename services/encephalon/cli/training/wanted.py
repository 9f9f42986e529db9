"""From what was typed to fields of `training.runs.RunSettings`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from encephalon.core.errors import InvalidInput

__all__ = ["DETERMINISTIC", "settings"]

DETERMINISTIC: Final[Mapping[str, Any]] = {"plan": "fixed", "mode": "sync", "threads": 1}
"""With these a run repeats bit for bit."""


def settings(typed: Mapping[str, Any], *, lr: float | None = None, deterministic: bool = False) -> dict[str, Any]:
    """Only what was typed. InvalidInput shows how it is written."""
    given = {name: value for name, value in typed.items() if value not in (None, [], ())}
    found = {name: READERS.get(name, as_typed)(value) for name, value in given.items()}
    if deterministic:
        found |= certain(found)
    if lr is not None:
        found["optimizer_arguments"] = {"lr": lr, **found.get("optimizer_arguments", {})}
    elif "optimizer" in found:  # another optimiser has its own rate
        found.setdefault("optimizer_arguments", {})
    return found


def certain(found: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in DETERMINISTIC.items():
        if found.get(name, value) != value:
            raise InvalidInput(f"--deterministic means --{name} {value}, which goes not with --{name} {found[name]}")
    return DETERMINISTIC


def as_typed(value: Any) -> Any:
    return value


def named(value: str) -> str:
    """ "none" is how one types nothing."""
    return "" if value == "none" else value


def pairs(option: str, items: Iterable[str], example: str) -> dict[str, str]:
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name or not equals or not value:
            raise InvalidInput(f"{option} {item[:80]} cannot be read; write it as {option} {example}")
        if name in found:
            raise InvalidInput(f"{option} gives '{name}' twice; give it once")
        found[name] = value
    return found


def arguments(option: str, example: str) -> Callable[[Iterable[str]], dict[str, Any]]:
    """Values are JSON where they can be read so, else words."""

    def read(items: Iterable[str]) -> dict[str, Any]:
        return {name: value_of(value) for name, value in pairs(option, items, example).items()}

    return read


def value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def targets(items: Iterable[str]) -> dict[str, float]:
    weighted = [item if "=" in item else f"{item}=1" for item in items]
    found = pairs("--target", weighted, "probabilities=0.5")
    try:
        return {name: float(weight) for name, weight in found.items()}
    except ValueError:
        raise InvalidInput(f"--target {' '.join(items)} has a weight that is no number") from None


READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "validation": named,
    "inputs": lambda items: pairs("--input", items, "image=picture"),
    "targets": targets,
    "learn": tuple,
    "freeze": tuple,
    "optimizer_arguments": arguments("--optimizer-arg", "momentum=0.9"),
    "schedule_arguments": arguments("--schedule-arg", "step_size=100"),
}
