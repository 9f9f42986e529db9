"""What a worker may be told; what the run computes is in `training.runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from encephalon.core.settings import Settings

__all__ = ["WorkerSettings"]


class WorkerSettings(Settings):
    """Computes shares of a training run: its settings lie in the store, and its control node is found there."""

    run: str
    """Name of the run."""

    worker: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name of this worker, unique in the run; one that joins under the same name takes the place of the one before."""

    state: str
    """Where the run's settings and the library's records lie and its processes are announced: sqlite:///PATH or
    etcd://HOST:PORT.
    """

    objects: str
    """Where weights, data and checkpoints lie: folder:///PATH or minio://ACCESS:SECRET@HOST:PORT/BUCKET."""

    namespace: str = "default"
    """Separates installations that share one store."""

    library_cache: Path | None = None
    """Folder for objects of the library that were fetched; the user's cache when not given."""

    folder: Path | None = None
    """Of this process. A worker keeps nothing that it could not do without, and writes nothing there."""

    listen: str = "127.0.0.1:0"
    """host:port of the health service, which says SERVING while the worker is in the run. Port 0 takes a free one."""

    metrics_port: int | None = None
    """Port of Prometheus' metrics; 0 takes a free one, none serves nothing."""

    at_once: int | None = Field(default=None, ge=1)
    """Most samples in one forward and backward pass; a larger share goes through in parts, which needs less memory and
    gives the same gradients but for rounding. None: a share as a whole.
    """

    most_samples: int = Field(default=0, ge=0)
    """Most samples of a share that this worker takes; 0 for any number."""

    share_memory: bool = True
    """Gradients are left, and parameters read, in memory shared with shards of the same machine, where that can be;
    else they go over sockets.
    """

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level of log lines."""
