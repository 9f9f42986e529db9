"""What `demo` shows: pictures with what was seen, heard and concluded, then the figures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from encephalon.cli.pictures import draw, shrink
from encephalon.cli.screen import can_draw
from encephalon.cli.trial import ABSENT, Trial, Verdict
from encephalon.library.sample import Sample

__all__ = ["figures", "show"]

SIDE = 14  # half of MNIST's 28 pixels: a picture is 14 characters wide and 7 lines high
PADDING = 3  # a table's column has a space on either side and a line
LABELS = 11  # the width of the column of words
NARROW = 45  # below this a row holds one picture, and has no room for lines
TITLES = {"image": "seeing", "audio": "hearing", "fused": "both"}


def show(console: Console, sample: Sample, trial: Trial, pictures: int) -> None:
    """Prints the pictures in rows that fit the terminal, then accuracy and latency."""
    chosen = choice(trial.verdicts, pictures)
    per_row = max(1, (console.width - LABELS - PADDING) // (SIDE + PADDING))
    for first in range(0, len(chosen), per_row):
        console.print(gallery(console, sample, trial.verdicts, chosen[first : first + per_row]))
    if chosen:
        console.print(f"{len(chosen)} of {len(trial.verdicts)} pairs; where the senses disagree, every second one.\n")
    console.print(accuracy_table(trial))
    console.print(latency_table(trial))


def choice(verdicts: list[Verdict], count: int) -> list[int]:
    """By turns the first pairs on which the senses agree and disagree: the rule, and what fusion is for."""
    disputed = [index for index, verdict in enumerate(verdicts) if verdict.disputed]
    agreed = [index for index, verdict in enumerate(verdicts) if not verdict.disputed]
    mixed = [index for pair in zip_longest(agreed, disputed) for index in pair if index is not None]
    return mixed[:count]


def gallery(console: Console, sample: Sample, verdicts: list[Verdict], chosen: list[int]) -> Table:
    table = Table(show_header=False, box=None if console.width < NARROW else HEAVY_HEAD)
    table.add_column(no_wrap=True)
    for _ in chosen:
        table.add_column(justify="center", no_wrap=True, min_width=SIDE)
    colour = console.color_system in ("256", "truecolor") and not console.no_color  # 16 colours have three greys
    blocks = can_draw(console)
    pictures = (draw(shrink(sample.images[index], SIDE), colour=colour, blocks=blocks) for index in chosen)
    shown = [verdicts[index] for index in chosen]
    table.add_row("picture", *pictures, end_section=True)
    table.add_row("saw", *(opinion(verdict, "image") for verdict in shown))
    table.add_row("heard", *(opinion(verdict, "audio") for verdict in shown))
    table.add_row("concluded", *(opinion(verdict, "fused") for verdict in shown))
    table.add_row("truth", *(judged(verdict, blocks) for verdict in shown))
    return table


def opinion(verdict: Verdict, sense: str) -> Text:
    digit = verdict.digits[sense]
    if digit == ABSENT:
        return Text("too late", style="yellow")
    style = "green" if digit == verdict.label else "red"
    return Text(f"{digit} ({verdict.certainty[sense]:.0%})", style=style)


def judged(verdict: Verdict, ticks: bool) -> Text:
    mark = ("✓" if verdict.right else "✗") if ticks else ("right" if verdict.right else "wrong")
    return Text(f"{verdict.label} {mark}", style="bold green" if verdict.right else "bold red")


def accuracy_table(trial: Trial) -> Table:
    table = Table(title=f"Accuracy on {len(trial.verdicts)} pairs", title_justify="left")
    table.add_column("sense")
    table.add_column("right", justify="right")
    table.add_column("accuracy", justify="right")
    for sense, title in TITLES.items():
        right = sum(verdict.digits[sense] == verdict.label for verdict in trial.verdicts)
        table.add_row(title, str(right), f"{trial.accuracy(sense):.1%}", style="bold" if sense == "fused" else "")
    return table


def latency_table(trial: Trial) -> Table:
    table = Table(title="Latency in milliseconds", title_justify="left")
    table.add_column("where")
    table.add_column("p50", justify="right")
    table.add_column("p99", justify="right")
    for name, latency in latencies(trial):
        table.add_row(name, f"{latency['p50']:.1f}", f"{latency['p99']:.1f}")
    return table


def latencies(trial: Trial) -> Iterator[tuple[str, dict[str, float]]]:
    yield from trial.region_latency().items()
    yield "whole brain", trial.latency()


def figures(brain: str, trial: Trial, start_seconds: float, concurrency: int) -> dict[str, Any]:
    """The same as one JSON object; latencies in milliseconds."""
    return {
        "brain": brain,
        "pairs": len(trial.verdicts),
        "accuracy": {sense: round(trial.accuracy(sense), 4) for sense in TITLES},
        "regions": {name: {"latency_ms": latency} for name, latency in trial.region_latency().items()},
        "latency_ms": trial.latency(),
        "requests_per_second": round(len(trial.verdicts) / trial.seconds, 1),
        "concurrency": concurrency,
        "start_seconds": round(start_seconds, 2),
        "verdicts": [
            {"label": verdict.label, **{TITLES[sense]: verdict.digits[sense] for sense in TITLES}}
            for verdict in trial.verdicts
        ],
    }
