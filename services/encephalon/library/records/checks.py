"""The check of a record at the border: what gets in here is trusted by everything that reads it."""

from __future__ import annotations

from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.records import bodies
from encephalon.library.records.bounds import check_figures, check_line, check_text
from encephalon.library.records.kinds import name_of_kind
from encephalon.library.records.reference import check_name

__all__ = ["MAX_PARENTS", "MAX_RECORD_BYTES", "MAX_VERSION", "check_draft", "check_record", "check_reference"]

MAX_RECORD_BYTES: Final = 256 * 1024
MAX_PARENTS: Final = 45
"""A commit has at most 100 items, and each parent needs two of them: its lineage and the condition that it is there."""

MAX_VERSION: Final = 99_999_999
"""A version has eight digits in a key."""

MAX_DESCRIPTION: Final = 20_000
MAX_TAGS: Final = 100
MAX_TAG: Final = 1_000
MAX_METRICS: Final = 1_000


def check_draft(draft: pb.Record) -> None:
    """InvalidInput with the field that is wrong. `id.version`, the time and the author are not looked at; the writer
    sets them.
    """
    size = draft.ByteSize()
    if size > MAX_RECORD_BYTES:
        raise InvalidInput(
            f"the record has {size} bytes, at most {MAX_RECORD_BYTES} are allowed; keep large things as objects",
            size=size,
        )
    _check_id(draft)
    check_text("the description", draft.description, MAX_DESCRIPTION)
    check_line("the code version", draft.code_version)
    check_line("the licence", draft.licence)
    check_line("the origin", draft.origin, most=2_000)
    _check_tags(draft)
    check_figures("metrics", draft.metrics, MAX_METRICS)
    _check_parents(draft)
    bodies.check_body(draft)


def check_record(record: pb.Record) -> None:
    """As `check_draft`, of a record that has its number, time and author: one that is imported."""
    check_draft(record)
    check_reference("the record's id", record.id)
    check_line("the author", record.created_by)
    if not record.HasField("created_time"):
        raise InvalidInput("the record has no created_time", field="created_time")
    bodies.check_time("created_time", record.created_time)


def check_reference(field: str, reference: pb.Reference) -> None:
    """InvalidInput unless kind, name and version are given."""
    name_of_kind(reference.kind)
    check_name(reference.name)
    if not 0 < reference.version <= MAX_VERSION:
        raise InvalidInput(f"{field} has the version {reference.version}, expected 1 to {MAX_VERSION}", field=field)


def _check_id(draft: pb.Record) -> None:
    kind = name_of_kind(draft.id.kind)
    check_name(draft.id.name)
    body = draft.WhichOneof("body")
    if body != kind:
        found = f"the body of a {body}" if body else "no body"
        raise InvalidInput(f"{kind}:{draft.id.name} has {found}, expected that of a {kind}", field=kind)


def _check_tags(draft: pb.Record) -> None:
    if len(draft.tags) > MAX_TAGS:
        raise InvalidInput(f"there are {len(draft.tags)} tags, at most {MAX_TAGS} are allowed", field="tags")
    for name, value in draft.tags.items():
        check_line("the name of a tag", name, most=100, empty=False)
        check_line(f"the tag '{name}'", value, most=MAX_TAG)


def _check_parents(draft: pb.Record) -> None:
    if len(draft.parents) > MAX_PARENTS:
        raise InvalidInput(
            f"there are {len(draft.parents)} parents, at most {MAX_PARENTS} are allowed", field="parents"
        )
    seen: set[tuple[int, str, int]] = set()
    for parent in draft.parents:
        check_reference("a parent", parent.record)
        check_line("the role of a parent", parent.role, most=100, empty=False)
        key = (parent.record.kind, parent.record.name, parent.record.version)
        if key in seen:
            raise InvalidInput(
                f"{parent.record.name}@{parent.record.version} is a parent twice; name it once", field="parents"
            )
        if key == (draft.id.kind, draft.id.name, draft.id.version):
            raise InvalidInput("the record is its own parent; name what it was made from", field="parents")
        seen.add(key)
