"""What the user may decide about where a run lives; what it computes stands in `training.runs.RunSettings`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from encephalon.local.folders import Folders, default_state_dir

__all__ = ["TrainingOptions"]


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """`state` and `objects` are store addresses as `encephalon.state` takes them; empty means embedded, in
    `state_dir`. `namespace` separates runs that share a store.

    `cache_dir` is where fetched objects lie, None: where the platform keeps such. `processes` are the workers that are
    started; None starts as many as the settings say. `tensorboard` is a folder for TensorBoard's event files, None:
    that of the run. `start_timeout_s` bounds the time until the control node answers, `stop_s` that of the last
    checkpoint, `drain_s` that of a process to end; then it is killed.
    """

    state: str = ""
    objects: str = ""
    namespace: str = "default"
    state_dir: Path = field(default_factory=default_state_dir)
    cache_dir: Path | None = None
    processes: int | None = None
    tensorboard: Path | None = None
    start_timeout_s: float = 120.0
    stop_s: float = 30.0
    drain_s: float = 10.0

    @property
    def state_url(self) -> str:
        return self.state or Folders(self.state_dir).state_url

    @property
    def objects_url(self) -> str:
        return self.objects or Folders(self.state_dir).objects_url

    def folder(self, run: str) -> Path:
        """Of one run: its logs, and what its processes keep on disk."""
        return self.state_dir / "runs" / run
