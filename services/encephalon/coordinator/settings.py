"""What a coordinator may be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from encephalon.core.settings import Settings

__all__ = ["CoordinatorSettings"]


class CoordinatorSettings(Settings):
    """Serves brains: moves activations between their regions, over the Open Inference Protocol."""

    listen: str = "127.0.0.1:9000"
    """host:port to serve on; loopback only, because nothing here asks a caller who he is. Port 0 takes a free one."""

    unix: str = ""
    """Path of a Unix socket to serve on as well; none by default."""

    brain: list[Path] = Field(default_factory=list)
    """Manifests to load at the start; may be repeated. More can be loaded while running."""

    follow: list[str] = Field(default_factory=list)
    """Brains of the library to serve, NAME@ALIAS or NAME@VERSION; may be repeated. A moved alias is followed."""

    library: str = "default"
    """Namespace of the library in the store, with `follow`."""

    state: str = ""
    """Where regions announce themselves and loaded brains are kept: sqlite:///PATH or etcd://HOST:PORT."""

    namespace: str = "default"
    """Separates installations that share one store."""

    metrics_port: int | None = None
    """Port of Prometheus' metrics; 0 takes a free one, none serves nothing."""

    log_level: str = "INFO"
    """Least level of log lines."""

    default_timeout_s: float = Field(default=30.0, gt=0, le=86400)
    """Seconds for a request that names no time; more than any brain needs, less than a caller waits for."""

    replica_grace_s: float = Field(default=0.5, ge=0, le=60)
    """Seconds that a request waits when its region has no replica; a restart takes longer, a reconnect does not."""

    max_in_flight: int = Field(default=1024, ge=1, le=1_000_000)
    """Requests on their way at once; more are refused. Four full mailboxes of regions."""

    max_in_flight_bytes: int = Field(default=1 << 30, ge=1 << 16)
    """Bytes of their inputs."""

    max_message_bytes: int = Field(default=64 << 20, ge=1 << 16, lt=1 << 31)
    """Largest request or answer."""

    shared_memory: list[str] = Field(default_factory=list)
    """Prefixes of POSIX shared memory that callers may register ("/" allows any); none by default."""

    share_with_regions: bool = True
    """Large tensors go to regions on the same machine through shared memory, where they offer it."""
