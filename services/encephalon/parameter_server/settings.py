"""What a shard may be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from encephalon.core.settings import Settings

__all__ = ["ShardSettings"]


class ShardSettings(Settings):
    """Serves one shard of the parameter server of a training run; the run's control node finds it and loads it."""

    shard: int = Field(ge=0, lt=256)
    """Its number, from 0."""

    run: str
    """Name of the run."""

    state: str
    """Where to announce the shard: sqlite:///PATH or etcd://HOST:PORT."""

    objects: str
    """Where checkpoints lie: folder:///PATH or minio://ACCESS:SECRET@HOST:PORT/BUCKET."""

    namespace: str = "default"
    """Separates installations that share one store."""

    listen: str = "127.0.0.1:0"
    """host:port for the control node's orders; loopback only, because nothing here asks a caller who he is. Port 0
    takes a free one."""

    data_listen: str = "127.0.0.1:0"
    """host:port for gradients and parameters; another port, so that orders do not queue behind them."""

    advertise: str = ""
    """Name or IP address of this machine for others; that which it listens on when empty."""

    metrics_port: int | None = None
    """Port of Prometheus' metrics; 0 takes a free one, none serves nothing."""

    folder: Path
    """Where pieces of checkpoints lie while they are written and read; as large as parameters and slots. It is the
    shard's alone, and what an earlier process has left there is deleted."""

    threads: int = Field(default=1, ge=1, le=1024)
    """With which torch adds and applies; memory is its limit, so more help little."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level of log lines."""
