"""What the user may decide about a local brain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from encephalon.local.folders import default_state_dir

__all__ = ["Options", "Placement"]

Placement = Literal["colocated", "distributed"]


@dataclass(frozen=True, slots=True)
class Options:
    """`placement` None leaves it to the manifest, region by region, and to "distributed" where that says nothing.

    `listen` is host:port of the coordinator; port 0 takes a free one. `replicas` per region go over the manifest's.
    `state` and `objects` are store addresses as `encephalon.state` takes them; empty means embedded, in `state_dir`.
    `metrics_port` is the coordinator's; 0 takes a free one. `start_timeout_s` bounds the time until the brain is ready;
    two minutes, because a cold disk needs that to read torch once per region. `library` is the namespace of the library
    in the stores.
    """

    listen: str = "127.0.0.1:9000"
    placement: Placement | None = None
    replicas: Mapping[str, int] = field(default_factory=dict)
    state: str = ""
    objects: str = ""
    namespace: str = ""
    library: str = "default"
    state_dir: Path = field(default_factory=default_state_dir)
    metrics_port: int = 0
    start_timeout_s: float = 120.0
    drain_s: float = 10.0
