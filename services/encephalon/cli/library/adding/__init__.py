"""`encephalon library add`: what a source is decides what it becomes; each kind of record has a module here."""

from encephalon.cli.library.adding.command import added

__all__ = ["added"]
