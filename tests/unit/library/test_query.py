"""Queries without a store: what may be asked, orders, tokens."""

from __future__ import annotations

import base64
import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.query import MetricCondition, Query, token
from encephalon.library.query.matching import checks_of, lacking, may_say, needles_of, words_of
from encephalon.library.query.order import Order


def test_words_of_a_command_line() -> None:
    query = Query.parse(
        ["Grey", "pictures"],
        kind="networks",
        area="vision",
        tags=["team=vision", "kept", "note=a=b"],
        metrics=["accuracy.test>=0.5", " loss.test < 2e-1 ", "epochs==3"],
        sort="-created",
    )
    assert query.kind == "network"
    assert query.text == "Grey pictures"
    assert dict(query.tags) == {"team": "vision", "kept": None, "note": "a=b"}
    assert [str(one) for one in query.conditions] == ["accuracy.test>=0.5", "loss.test<0.2", "epochs=3.0"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kind": "netwrok"}, "did you mean 'network'?"),
        ({"sort": "creatd"}, "did you mean 'created'?"),
        ({"sort": "-sise"}, "did you mean 'size'?"),
        ({"sort": "accuracy.test"}, "metric:accuracy.test"),
        ({"sort": "metric:"}, "metric:NAME"),
        ({"sort": "quux"}, "there are name, created, size, version and metric:NAME"),
        ({"code": "3"}, "give three digits"),
        ({"metrics": ["accuracy"]}, "accuracy.test>=0.5"),
        ({"metrics": ["accuracy=>0.5"]}, "is no condition on a metric"),
        ({"metrics": ["accuracy>nan"]}, "not a number"),
        ({"tags": ["=x"]}, "before '=' there is nothing"),
        ({"name": "x" * 2000}, "at most 1000 characters"),
        ({"tags": [f"t{i}" for i in range(60)]}, "at most 50"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_nearest_word(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Query.parse(**wrong)  # type: ignore[arg-type]
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("comparison", "fitting"),
    [(">=", {1.0, 2.0}), (">", {2.0}), ("<=", {0.0, 1.0}), ("<", {0.0}), ("=", {1.0}), ("!=", {0.0, 2.0})],
)
def test_a_metric_is_compared(comparison: str, fitting: set[float]) -> None:
    holds = MetricCondition("accuracy", comparison, 1.0).holds
    assert {figure for figure in (0.0, 1.0, 2.0, math.nan) if holds(figure)} == fitting


def test_an_unknown_comparison_is_refused() -> None:
    with pytest.raises(InvalidInput, match="compares nothing"):
        Query(metrics=[("accuracy", "~", 1.0)])


SUMMARY = pb.Summary(
    id=pb.Reference(kind=pb.KIND_NETWORK, name="seeing/Grey-Digits", version=2),
    description="Straße und Bäume",
    tags={"team": "Vision", "empty": ""},
    metrics={"accuracy.test": 0.75, "broken": math.nan},
    area="vision",
    code="003",
    modalities=["image"],
    data_sets=["avmnist"],
)


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        (Query(), True),
        (Query(area="vision", code="003", modality="image", data_set="avmnist"), True),
        (Query(area="visio"), False),
        (Query(code="002"), False),
        (Query(modality="audio"), False),
        (Query(data_set="team"), False),
        (Query(tags={"team": "Vision"}), True),
        (Query(tags={"team": "vision"}), False),
        (Query(tags={"team": None}), True),
        (Query(tags={"empty": ""}), True),
        (Query(tags={"Vision": None}), False),
        (Query(tags={"absent": ""}), False),
        (Query(metrics=[("accuracy.test", ">=", 0.75), ("accuracy.test", "<", 0.8)]), True),
        (Query(metrics=[("accuracy.test", "<", 0.75)]), False),
        (Query(metrics=[("loss.test", "<", 0.75)]), False),
        (Query(metrics=[("broken", "!=", 0.75)]), False),
        (Query(text="STRASSE digits vision"), True),
        (Query(text="bäume team"), True),
        (Query(text="baum"), False),
        (Query(name="seeing/*"), True),
        (Query(name="*[Dd]igits"), True),
        (Query(name="seeing"), False),
        (Query(name="SEEING/*"), False),
        (Query(area="\ud800"), False),
    ],
)
def test_conditions(query: Query, fits: bool) -> None:
    summary = pb.Summary.FromString(SUMMARY.SerializeToString())
    found = all(check(summary) for check in checks_of(query)) and not lacking(words_of(query), summary)
    assert found == fits
    assert summary == SUMMARY, "asking must not change what is asked"
    if fits:
        assert may_say(words_of(query), SUMMARY.SerializeToString())
        assert all(needle in SUMMARY.SerializeToString() for needle in needles_of(query))


def test_what_has_no_such_figure_comes_last_in_both_directions() -> None:
    figures = {"a": 0.5, "b": None, "c": math.nan, "d": -1.0, "e": math.inf}
    summaries = {
        name: pb.Summary(metrics={} if figure is None else {"accuracy": figure}) for name, figure in figures.items()
    }
    for text, expected in {"metric:accuracy": "daebc", "-metric:accuracy": "eadcb"}.items():
        order = Order.parse(text)
        assert order is not None
        place = order.position()
        found = sorted(figures, key=lambda name: place(summaries[name], name), reverse=order.descending)
        assert "".join(found) == expected


def test_a_token_comes_back_as_it_was() -> None:
    for query, position in (
        (Query(sort="name"), (0, "seeing/ü", "network/x")),
        (Query(sort="-metric:loss"), (1, math.inf, "network/x")),
        (Query(sort="size"), (0, 2**63, "network/x")),
        (Query(), (0, 0, "network/x")),
    ):
        assert token.read(query, token.write(query, position)) == position


def test_equal_queries_share_tokens_and_others_do_not() -> None:
    one = Query(tags={"a": "1", "b": "2"}, metrics=[("x", ">", 1), ("y", "<", 2)], text="to  be")
    same = Query(tags={"b": "2", "a": "1"}, metrics=[("y", "<", 2), ("x", ">", 1)], text="to be")
    written = token.write(one, (0, 0, "network/x"))
    assert token.read(same, written) == (0, 0, "network/x")
    for other in (Query(), Query(tags={"a": "1"}), Query(text="to be", all_versions=True)):
        with pytest.raises(InvalidInput, match="belongs to another query"):
            token.read(other, written)


def test_an_altered_token_is_refused() -> None:
    query = Query(sort="-created")
    written = token.write(query, (1, 1_700_000_000, "network/x"))
    wrong = ["x", "%%%", "é", written[:-3], written + "AAAA", "A" * 5000]
    wrong += [f"{written[:i]}{'A' if written[i] != 'A' else 'B'}{written[i + 1 :]}" for i in range(len(written) - 1)]
    for text in wrong:
        with pytest.raises(InvalidInput, match="is no token of a page"):
            token.read(query, text)


@pytest.mark.parametrize(
    "payload", [b"5", b"null", b"[" * 2900, b'["a", 0]', b"\xff", b'{"a": 1, "b": 2, "c": 3, "d": 4}']
)
def test_a_token_made_by_another_hand_is_refused(payload: bytes) -> None:
    made = hashlib.sha256(b"page" + payload).digest()[:6] + payload
    with pytest.raises(InvalidInput, match="token of a page"):
        token.read(Query(), base64.urlsafe_b64encode(made).decode())


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text(), max_size=3), st.integers(0, 2**64 - 1), st.text())
def test_bytes_tell_only_of_words_that_are_not_there(
    name: str, description: str, tags: dict[str, str], size: int, text: str
) -> None:
    summary = pb.Summary(id=pb.Reference(name=name), description=description, tags=tags, size=size)
    for words in ([text.casefold()], words_of(Query(text=f"{name[:3]} {description[-4:]}"))):
        assert may_say(words, summary.SerializeToString()) or lacking(words, summary)
