"""The command line of `poe bench-serving`; `--help` tells its options."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from tests.bench.serving import report, rounds
from tests.bench.serving.encephalon_brain import Encephalon
from tests.bench.serving.ray_serve import RayServe
from tests.bench.serving.system import System
from tests.bench.serving.triton import Triton

SYSTEMS: tuple[System, ...] = (Triton(), Encephalon("colocated"), Encephalon("distributed"), RayServe())
NAMES = [system.name for system in SYSTEMS]


def main(arguments: Sequence[str]) -> int:
    """Returns 1 when an answer was wrong or missing; a missed bar is a result, not a failure."""
    chosen = parser().parse_args(arguments)
    systems = [system for system in SYSTEMS if system.name in chosen.systems]
    tell("installing what is compared with, where it is missing (minutes, once)")
    where = report.machine(list(dict.fromkeys(system.prepare() for system in systems)))
    measurements = rounds.measure(
        systems, 1 if chosen.quick else chosen.rounds, 1.5 if chosen.quick else chosen.seconds, tell
    )
    titles = {system.name: system.title for system in systems}
    if chosen.json:
        print(json.dumps(report.as_json(measurements, where), indent=2))
    elif chosen.markdown:
        print(report.markdown(measurements, titles, where))
    else:
        report.show(measurements, titles, where)
    unsound = report.unsound(measurements)
    for sentence in unsound:
        tell(sentence)
    return 1 if unsound or len(measurements) < len(systems) * len(rounds.CELLS) else 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="bench-serving", description="One graph, one client, three servers; see README, Figures."
    )
    options.add_argument("--systems", nargs="+", choices=NAMES, default=NAMES, help="which to measure (default: all)")
    options.add_argument(
        "--rounds", type=int, default=3, help="how often each system is started and measured (default 3)"
    )
    options.add_argument("--seconds", type=float, default=5.0, help="how long each cell is loaded (default 5)")
    options.add_argument("--quick", action="store_true", help="one round of 1.5 s per cell, to see that all works")
    shown = options.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print everything measured as one JSON object")
    shown.add_argument("--markdown", action="store_true", help="print the tables of the README")
    return options


def tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
