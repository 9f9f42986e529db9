"""What a region that learns may be told; what it learns comes from its driver."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from encephalon.core.settings import Settings

__all__ = ["LearningRegionSettings"]


class LearningRegionSettings(Settings):
    """Computes one region of a brain for one worker of a training run, as a stage of a pipeline."""

    run: str
    """Name of the run."""

    worker: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """The worker that drives it."""

    region: str
    """Which region of the brain."""

    state: str
    """Where it is announced: sqlite:///PATH or etcd://HOST:PORT."""

    objects: str
    """Where weights lie: folder:///PATH or minio://ACCESS:SECRET@HOST:PORT/BUCKET."""

    namespace: str = "default"
    """Separates installations that share one store."""

    folder: Path | None = None
    """Of this process, as all processes of a run have one; nothing is written there."""

    listen: str = "127.0.0.1:0"
    """host:port to serve on; loopback only, because nothing here asks a caller who he is. Port 0 takes a free one."""

    advertise: str = ""
    """Host at which others reach this process; the one it listens on when empty."""

    metrics_port: int | None = None
    """Port of Prometheus' metrics; 0 takes a free one, none serves nothing."""

    threads: int | None = Field(default=None, ge=1, le=1024)
    """With which torch computes; when not given OMP_NUM_THREADS says it, or torch."""

    share_memory: bool = True
    """Gradients and parameters go through memory shared with shards of the same machine, where that can be."""

    max_message_bytes: int = Field(default=256 << 20, ge=1 << 16, lt=1 << 31)
    """Largest pass; the activations of a micro-batch are smaller by far."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level of log lines."""
