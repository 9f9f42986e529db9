"""What a region may be told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from encephalon.core.settings import Settings

__all__ = ["RegionSettings"]


class RegionSettings(Settings):
    """Serves one region of a brain: one network behind one mailbox, over the Open Inference Protocol."""

    brain: Path | None = None
    """The manifest of the brain (YAML)."""

    follow: str = ""
    """Instead of a manifest a brain of the library, NAME@ALIAS or NAME@VERSION: the network follows the alias."""

    region: str
    """Which of its regions this process serves."""

    listen: str = "127.0.0.1:0"
    """host:port to serve on; loopback only, because nothing here asks a caller who he is. Port 0 takes a free one."""

    advertise: str = ""
    """host:port at which others reach this process; what it listens on when empty, with the host's name for a wildcard.
    """

    unix: str = ""
    """Path of a Unix socket to serve on as well, for callers on this host; none by default."""

    state: str = ""
    """Where to announce this replica: sqlite:///PATH or etcd://HOST:PORT; empty announces nothing."""

    objects: str = ""
    """Where weights named object:sha256:HEX are: folder:///PATH or minio://ACCESS:SECRET@HOST:PORT/BUCKET; empty has
    none.
    """

    namespace: str = "default"
    """Separates installations that share one store."""

    library: str = "default"
    """Namespace of the library in the stores, with `follow`."""

    weights: Path | None = None
    """The folder whose weight files a client may name when it loads a network; none by default."""

    metrics_port: int | None = None
    """Port of Prometheus' metrics; 0 takes a free one, none serves nothing."""

    threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads with which torch computes; the cores shared out among the brain's regions when not given."""

    max_message_bytes: int = Field(default=64 << 20, ge=1 << 16, lt=1 << 30)
    """Largest request or answer; a batch of 32 scenes is below 4 MiB."""

    default_timeout_s: float = Field(default=60.0, gt=0, le=86400)
    """Seconds for a request that names no time; longer than any coordinator waits."""

    drain_s: float = Field(default=10.0, ge=0, le=3600)
    """Seconds that admitted requests may take when the process is asked to leave; a mailbox of usual length needs one.
    """

    shared_memory: list[str] = Field(default=["/encephalon-"])
    """Prefixes of POSIX shared memory that callers may register ("/" allows any). Large tensors of a coordinator on
    this
    machine come through memory of this prefix, whose names are random and which only the same user can open."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level of log lines."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.brain is None) == (not self.follow):
            raise ValueError("give either --brain, a manifest, or --follow, a brain of the library")
        if self.follow and not (self.state and self.objects):
            raise ValueError("--follow needs the library's stores; give --state and --objects")
        return self
