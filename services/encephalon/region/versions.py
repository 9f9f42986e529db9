"""Which versions of its network a region has had, has, and failed to load."""

from __future__ import annotations

from collections.abc import Sequence

from encephalon.core.errors import NotFound, Unavailable
from encephalon.core.inference.models import ModelIndexEntry
from encephalon.region.version import Version

__all__ = ["Versions"]


class Versions:
    """At most one is in service."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._highest = 0
        self._loading = ""
        self._failed: ModelIndexEntry | None = None
        self._reason = "it is loading"
        self.current: Version | None = None

    def find(self, name: str = "") -> Version:
        """The one in service. NotFound when another one is meant, Unavailable when there is none."""
        current = self.current
        if current is None:
            raise Unavailable(f"region '{self._region}' serves no network: {self._reason}", region=self._region)
        if name and name != current.name:
            raise NotFound(
                f"region '{self._region}' has no version '{name[:64]}'; version {current.name} is in service",
                region=self._region,
                version=name[:64],
            )
        return current

    def next_name(self) -> str:
        return str(self._highest + 1)

    def begin(self, name: str) -> None:
        self._loading = name

    def serve(self, version: Version) -> None:
        self._loading, self._failed, self._reason = "", None, ""
        if version.name.isdecimal():
            self._highest = max(self._highest, int(version.name))
        self.current = version

    def fail(self, name: str, reason: str) -> None:
        self._loading = ""
        self._failed = ModelIndexEntry(self._region, name, "UNAVAILABLE", reason)
        if self.current is None:
            self._reason = reason

    def unload(self) -> None:
        self.current, self._reason = None, "it was unloaded; load one"

    def stop(self) -> None:
        """Lets go of the network, which may be large, whoever still knows of the region."""
        self.current, self._reason = None, "it has stopped"

    def index(self) -> Sequence[ModelIndexEntry]:
        entries = []
        if self.current is not None:
            entries.append(ModelIndexEntry(self._region, self.current.name, "READY"))
        if self._loading:
            entries.append(ModelIndexEntry(self._region, self._loading, "LOADING"))
        if self._failed is not None:
            entries.append(self._failed)
        return entries or [ModelIndexEntry(self._region, "", "UNAVAILABLE", self._reason)]
