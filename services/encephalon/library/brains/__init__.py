"""The brain manifest: the YAML a user writes, checked into a `Brain`. Knows no server: any machine can check one."""

from encephalon.library.brains.brain import Brain, Endpoint, Output, Pathway, Region
from encephalon.library.brains.identity import identity_of
from encephalon.library.brains.loading import load_manifest, parse_manifest
from encephalon.library.brains.manifest import schema

__all__ = [
    "Brain",
    "Endpoint",
    "Output",
    "Pathway",
    "Region",
    "identity_of",
    "load_manifest",
    "parse_manifest",
    "schema",
]
