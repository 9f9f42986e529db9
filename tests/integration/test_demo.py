"""The first thing that a newcomer types."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.waiting import until

DEMO = (sys.executable, "-m", "encephalon.cli", "demo")


async def demo(*arguments: str, **environment: str) -> tuple[str, str]:
    """Runs the demo, which must succeed, and returns what it printed and what it said."""
    process = await asyncio.create_subprocess_exec(
        *DEMO, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment}
    )
    printed, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    return printed.decode(), said.decode()


async def test_two_senses_are_better_than_one() -> None:
    printed, _ = await demo("--json")
    figures = json.loads(printed)
    accuracy = figures["accuracy"]
    assert figures["pairs"] == len(figures["verdicts"]) >= 300
    assert accuracy["fused"] > max(accuracy["image"], accuracy["audio"])
    assert list(figures["regions"]) == ["visual", "auditory", "association"]
    for latency in (figures["latency_ms"], *(region["latency_ms"] for region in figures["regions"].values())):
        assert 0 < latency["p50"] <= latency["p99"]


@pytest.mark.slow
async def test_a_poor_terminal_gets_the_same_tables() -> None:
    poor = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "40", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    printed, said = await demo("--colocated", "--pairs", "24", "--show", "2", **poor)
    assert printed.isascii()
    assert max(len(line) for line in printed.splitlines()) <= 40
    for word in (
        "saw",
        "heard",
        "concluded",
        "truth",
        "seeing",
        "hearing",
        "both",
        "visual",
        "auditory",
        "association",
    ):
        assert word in printed
    assert len(re.findall(r"right|wrong", printed)) >= 2
    assert "\x1b" not in printed + said


async def test_ctrl_c_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    demo = psutil.Process(process.pid)
    await until(lambda: len(demo.children(recursive=True)) == 4, within=30.0)
    children = demo.children(recursive=True)
    process.send_signal(signal.SIGINT)
    printed, said = await process.communicate()
    assert process.returncode == 130
    assert printed == b""
    assert b"Traceback" not in said
    assert not any(child.is_running() for child in children)
    assert os.listdir(tmp_path) == []
