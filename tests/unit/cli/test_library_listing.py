"""How a list of records looks."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.cli.library.listing import Aliases, further, main_metric, table, wanted_metrics
from encephalon.library.query import Query


def summary(name: str, version: int = 1, **fields: object) -> pb.Summary:
    id = pb.Reference(kind=pb.KIND_NETWORK, name=name, version=version)
    return pb.Summary(id=id, area="vision", code="002", size=5_000_000, **fields)


def drawn(
    items: list[pb.Summary], width: int, aliases: Aliases | None = None, wanted: tuple[str, ...] = ()
) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(table("Networks", items, aliases or {}, wanted, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


LONG = summary(
    "a/very-long-name-of-a-network/" + "x" * 98,
    99_999_999,
    description="words " * 60,
    metrics={"accuracy.test": 0.12345},
)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_a_list_is_never_wider_than_the_terminal(width: int) -> None:
    items = [LONG, summary("b", metrics={"f1": 1.0}), summary("c")]
    many = {f"alias-{number}": pb.Alias(version=99_999_999) for number in range(30)}
    lines = drawn(items, width, {(pb.KIND_NETWORK, LONG.id.name): many})
    assert max(map(len, lines)) <= width
    assert lines[1].split()[0] == "name"


def test_a_record_has_a_line_and_the_columns_are_those_that_say_something() -> None:
    lines = drawn([summary("eyes", description="Sees.\nAnd more.")], 80)
    assert lines[1].split() == ["name", "v", "network", "size", "created", "description"]
    assert len(lines) == 3
    assert "And more" not in lines[2]


def test_one_metric_is_a_heading_and_several_are_named() -> None:
    one = drawn([summary("a", metrics={"accuracy.test": 0.5}), summary("b")], 120)
    assert "accuracy.test" in one[1]
    assert "0.5" in one[2]
    several = drawn([summary("a", metrics={"accuracy.test": 0.5}), summary("b", metrics={"loss.test": 2.0})], 120)
    assert "metric" in several[1]
    assert "loss.test 2" in several[3]
    odd = drawn([summary("a", metrics={"size": 7.0})], 120)
    assert "size 7" in odd[2]
    assert "4.77 MiB" in odd[2]


def test_the_metric_that_was_asked_for_is_shown() -> None:
    item = summary("a", metrics={"accuracy.test": 0.5, "latency_ms": 3.0, "loss.train": 1.0})
    assert main_metric(item, ()) == "accuracy.test"
    assert main_metric(item, wanted_metrics(Query(sort="-metric:latency_ms"))) == "latency_ms"
    assert main_metric(item, wanted_metrics(Query(metrics=[("loss.train", "<", 2.0)]))) == "loss.train"
    assert main_metric(summary("a", metrics={"b": 1.0, "c.test": 2.0}), ()) == "c.test"
    assert main_metric(summary("a"), ()) == ""


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        (["ls", "--text", "two words"], "encephalon ls --text 'two words' --after T"),
        (["ls", "--after", "S", "--limit", "2"], "encephalon ls --limit 2 --after T"),
        (["ls", "--after=S"], "encephalon ls --after T"),
        (["ls", "--minio", "minio://a:secret@h/b"], "the same with --after T"),
    ],
)
def test_how_the_next_page_is_asked_for(typed: list[str], asked: str) -> None:
    assert further(typed, "T") == asked
