"""Whether a summary fulfils a query, as cheaply as ten thousand of them need it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.library.query.query import Query
from encephalon.library.records.summary import DESCRIPTION_CHARACTERS

__all__ = ["Check", "checks_of", "lacking", "may_say", "needles_of", "words_of"]

Check = Callable[[pb.Summary], bool]


def needles_of(query: Query) -> tuple[bytes, ...]:
    """What the bytes of every fitting summary contain. Protobuf writes text as it is, so looking for it tells most of
    those that do not fit apart at a tenth of the price of decoding them.
    """
    texts = [query.area, query.modality, query.code, query.data_set, *query.tags, *query.tags.values()]
    texts += [condition.name for condition in query.conditions]
    # No text of a message is outside Unicode, so what is finds nothing, and need not be written right.
    return tuple(dict.fromkeys(text.encode(errors="replace") for text in texts if text))


def checks_of(query: Query) -> tuple[Check, ...]:
    """The conditions as functions, the cheapest first. Not the kind, which is part of the key, and not the text, which
    a summary may have only in part.
    """
    return tuple(_checks(query))


def _checks(query: Query) -> Iterator[Check]:
    if (area := query.area) is not None:
        yield lambda summary: summary.area == area
    if (code := query.code) is not None:
        yield lambda summary: summary.code == code
    if (modality := query.modality) is not None:
        yield lambda summary: modality in summary.modalities
    if (data_set := query.data_set) is not None:
        yield lambda summary: data_set in summary.data_sets
    for condition in query.conditions:
        yield _metric(condition.name, condition.holds)
    for name, value in query.tags.items():
        yield _tag(name, value)
    if query.name is not None:
        fits = re.compile(fnmatch.translate(query.name)).match
        yield lambda summary: fits(summary.id.name) is not None


def _metric(name: str, holds: Callable[[float], bool]) -> Check:
    def check(summary: pb.Summary) -> bool:
        # Reading an absent key of a map by [] would add it.
        figure = summary.metrics.get(name)
        return figure is not None and holds(figure)

    return check


def _tag(name: str, value: str | None) -> Check:
    if value is None:
        return lambda summary: name in summary.tags
    return lambda summary: summary.tags.get(name) == value


def words_of(query: Query) -> list[str]:
    return [word.casefold() for word in query.text.split()]


def may_say(words: Sequence[str], value: bytes) -> bool:
    """False only when a summary's bytes show, without being decoded, that neither it nor its record has all the words.

    Text stands in the bytes as it is, and what is between is dropped or stays outside of it; letters are folded one by
    one. So a word that is not in the whole is in no part. A description that is broken off makes the bytes longer.
    """
    if len(value) >= DESCRIPTION_CHARACTERS:
        return True
    text = value.decode(errors="ignore").casefold()
    return all(word in text for word in words)


def lacking(words: Sequence[str], summary: pb.Summary) -> list[str]:
    """The words that are not in the summary, and so perhaps in what it leaves out of the description."""
    text = f"{summary.id.name}\n{summary.description}".casefold()
    missing = [word for word in words if word not in text]
    if missing and summary.tags:
        # Half of the price, so only where the rest does not say it all.
        text = "\n".join((*summary.tags, *summary.tags.values())).casefold()
        missing = [word for word in missing if word not in text]
    return missing
