"""The command line of `poe bench-training`; `--help` tells its options."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from tests.bench.training import accuracy, balancing, memory, recovering, report, synchronising

PARTS = ("synchronising", "balancing", "accuracy", "memory", "recovering")


def main(arguments: Sequence[str]) -> int:
    """A missed bar is a result, not a failure."""
    chosen = parser().parse_args(arguments)
    # What is printed is the result; that a killed process cannot be reached is no news.
    quiet = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=quiet, logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    parts = [asyncio.run(measured(name, chosen)) for name in chosen.parts or PARTS]
    if chosen.json:
        print(report.as_json(parts))
    elif chosen.markdown:
        print(report.markdown(parts))
    else:
        report.show(parts)
    return 0


async def measured(name: str, chosen: argparse.Namespace) -> report.Part:
    quick, rounds = chosen.quick, chosen.rounds
    if name == "synchronising":
        return await synchronising.measure(1 if quick else rounds, quick, tell)
    if name == "balancing":
        return await balancing.measure(rounds, quick, tell)
    if name == "accuracy":
        return await accuracy.measure(chosen.seeds, quick, chosen.data, tell)
    if name == "recovering":
        return await recovering.measure(rounds, quick, tell)
    return await memory.measure(quick, tell)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="bench-training", description="What training costs, and against whom; see README, Figures."
    )
    options.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which to measure (default: all)")
    options.add_argument("--rounds", type=int, default=3, help="by turns, and seeds of balancing (default 3)")
    options.add_argument("--seeds", type=int, default=1, help="of accuracy (default 1)")
    options.add_argument("--data", type=Path, help="AV-MNIST as `encephalon data get avmnist` makes it")
    options.add_argument("--quick", action="store_true", help="one short round, to see that all works")
    shown = options.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print everything measured as one JSON object")
    shown.add_argument("--markdown", action="store_true", help="print the tables of the README")
    return options


def tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
