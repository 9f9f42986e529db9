"""What the README tells a reader to type works."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from encephalon.library.brains import parse_manifest

from tests.running import EXAMPLES, running_brain

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DEFAULT = "127.0.0.1:9000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


async def test_its_programs_run() -> None:
    programs = blocks("python")
    assert len(programs) == 2
    async with running_brain(EXAMPLES / "digits.yaml", "--colocated") as brain:
        for program in programs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "ignore", "-c", program.replace(DEFAULT, brain.address)),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            printed, said = await process.communicate()
            assert process.returncode == 0, said.decode()
            assert re.match(rb"\d", printed)


def test_its_manifest_is_one() -> None:
    (manifest,) = blocks("yaml")
    assert [region.name for region in parse_manifest(manifest).regions] == ["visual", "auditory", "association"]


def test_its_layers_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = "\n".join(f"    {layer}" for layer in contracts[0]["layers"])
    assert layers in README
    for module in contracts[1]["source_modules"]:
        assert f"`{module.removeprefix('encephalon.')}`" in README


def test_the_continuous_integration_runs_its_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    command = next(line for block in blocks("sh") for line in block.splitlines() if line.endswith("poe test"))
    for step in command.split(" && ")[2:]:
        assert step in script


def test_its_files_are_there() -> None:
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / path).exists(), path
