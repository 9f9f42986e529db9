"""What one watch has told its reader so far: the base for telling exactly the difference when history is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from encephalon.state.key_value import Entry, Event, EventKind

__all__ = ["Told"]


class Told:
    """Keys and the revision last told of each; as large as the number of keys below the watched prefix."""

    def __init__(self) -> None:
        self._revisions: dict[str, int] = {}

    def assume(self, entries: Iterable[Entry]) -> None:
        """The reader knows these already."""
        self._revisions = {entry.key: entry.revision for entry in entries}

    def put(self, entry: Entry) -> Event:
        self._revisions[entry.key] = entry.revision
        return Event(EventKind.PUT, entry.key, entry.value, entry.revision)

    def delete(self, key: str, revision: int) -> Event:
        self._revisions.pop(key, None)
        return Event(EventKind.DELETE, key, b"", revision)

    def doubt(self) -> None:
        """The revisions told so far are those of another store: an equal one no longer means an equal value."""
        self._revisions = dict.fromkeys(self._revisions, 0)

    def repeat(self, event: Event) -> Event:
        """Takes note of a PUT or DELETE that is being told."""
        if event.kind is EventKind.DELETE:
            self._revisions.pop(event.key, None)
        else:
            self._revisions[event.key] = event.revision
        return event

    def differences(self, entries: Iterable[Entry], revision: int) -> Iterator[Event]:
        """What turns the state told so far into `entries`, the whole state at `revision`; deletions come first."""
        present = {entry.key: entry for entry in entries}
        for key in [key for key in self._revisions if key not in present]:
            yield self.delete(key, revision)
        for key, entry in present.items():
            if self._revisions.get(key) != entry.revision:
                yield self.put(entry)
