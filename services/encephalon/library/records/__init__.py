"""What the library keeps, as messages: kinds, references, checks and the JSON view. Knows no store."""

from encephalon.library.records.kinds import KINDS, kind_named, name_of_kind
from encephalon.library.records.reference import Reference

__all__ = ["KINDS", "Reference", "kind_named", "name_of_kind"]
