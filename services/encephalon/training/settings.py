"""What a control node may be told; what the run computes is in `training.runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from encephalon.core.settings import Settings

__all__ = ["ControlSettings"]


class ControlSettings(Settings):
    """Leads one training run: its settings lie in the store, and its workers and shards find it there."""

    run: str
    """Name of the run."""

    namespace: str = "default"
    """Separates installations that share one store."""

    state: str
    """Where the run's settings and state are kept and its processes announced: sqlite:///PATH or etcd://HOST:PORT."""

    objects: str
    """Where checkpoints lie: folder:///PATH or minio://ACCESS:SECRET@HOST:PORT/BUCKET."""

    listen: str = "127.0.0.1:0"
    """host:port to serve on; loopback only, because nothing here asks a caller who he is. Port 0 takes a free one."""

    advertise: str = ""
    """host:port at which workers reach this process; what it listens on when empty."""

    metrics_port: int | None = None
    """Port of Prometheus' metrics; 0 takes a free one, none serves nothing."""

    folder: Path
    """Where pictures, TensorBoard's files and the report of the run are written."""

    shards: int | None = Field(default=None, ge=1, le=256)
    """Shards of the parameter server, in place of what the run's settings say; a resumed run may have others."""

    workers: int | None = Field(default=None, ge=1, le=1000)
    """Workers that are expected, in place of what the run's settings say."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level of log lines."""

    grace_s: float = Field(default=3.0, ge=0, le=60)
    """Seconds for which a finished run is still told to those who ask; a worker asks every two."""
