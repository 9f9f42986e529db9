"""What the README tells a reader to type works."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import soundfile
from PIL import Image

from encephalon.library.brains import parse_manifest
from encephalon.library.builtins import packaged_weights
from encephalon.library.sample import load_sample
from tests.data import needs_raw_data, raw_data
from tests.running import EXAMPLES, running_brain

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DEFAULT = "127.0.0.1:9000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


async def python(*arguments: str, folder: Path) -> tuple[int, str, str]:
    """Runs it in `folder`, which is its home too; returns code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state"), "XDG_CACHE_HOME": str(folder / "cache")},
    )
    printed, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode(), said.decode()


async def test_its_programs_and_commands_run(tmp_path: Path) -> None:
    programs = [program for program in blocks("python") if "encephalon.train(" not in program]
    (infer,) = re.findall(r"^encephalon (infer .*)$", README, re.MULTILINE)
    sample = load_sample()
    Image.fromarray(sample.images[0]).save(tmp_path / "digit.png")
    soundfile.write(tmp_path / "digit.wav", sample.audio[0], 8000)
    async with running_brain(EXAMPLES / "digits.yaml", "--colocated") as brain:
        for program in programs:
            code, printed, said = await python("-c", program.replace(DEFAULT, brain.address), folder=tmp_path)
            assert code == 0, said
            assert re.match(r"\d|vision/|torch.Size", printed), printed
        command = ("-m", "encephalon.cli", *infer.split(), "--address", brain.address)
        code, printed, said = await python(*command, folder=tmp_path)
        assert code == 0, said
        probabilities = json.loads(printed)["outputs"]["probabilities"]
        assert sum(probabilities) == pytest.approx(1.0, abs=1e-4)
        soundfile.write(tmp_path / "digit.wav", sample.audio[0], 44100)
        code, _, said = await python(*command, folder=tmp_path)
        assert code == 2
        assert "has a sample rate of 44100 Hz, input 'audio' expects 8000 Hz" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_its_programs_and_commands_that_learn_run(tmp_path: Path) -> None:
    (program,) = (program for program in blocks("python") if "encephalon.train(" in program)
    code, printed, said = await python("-c", program, folder=tmp_path)
    assert code == 0, said
    assert re.match(r"0\.\d+ after \d+ steps, \d+ samples/s, made brain:digits@2", printed), printed
    block = next(block for block in blocks("sh") if "encephalon train" in block)
    commands = [line.partition("   #")[0].strip() for line in block.splitlines()]
    for command in (command for command in commands if not command.startswith("encephalon up")):
        code, printed, said = await python("-m", "encephalon.cli", *shlex.split(command)[1:], folder=tmp_path)
        assert code == 0, (command, said)
        assert printed, command


@needs_raw_data
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_its_commands_of_the_library_run(tmp_path: Path) -> None:
    prepare(tmp_path)
    block = next(block for block in blocks("sh") if "encephalon library add" in block)
    commands = [command.strip() for line in block.splitlines() for command in line.partition("   #")[0].split(";")]
    assert len(commands) > 12
    for command in commands:
        _, *words = shlex.split(command, comments=True)
        code, printed, said = await python("-m", "encephalon.cli", *words, folder=tmp_path)
        assert code == 0, (command, said)
        assert printed, command
    assert (tmp_path / "digits.svg").read_text().startswith("<svg")


def prepare(folder: Path) -> None:
    """The files that the README's reader has."""
    (detector,) = (raw_data() or Path()).glob("detectors/yolo-fastest/**/yolo-fastest.cfg")
    for kind in ("cfg", "weights"):
        shutil.copy(detector.with_suffix(f".{kind}"), folder / f"yolo-fastest.{kind}")
    shutil.copy(packaged_weights("vision", "002"), folder / "eyes.safetensors")
    (folder / "deploy").symlink_to(ROOT / "deploy")
    sample = load_sample()
    lines = ["picture,sound,bird"]
    for number in range(20):
        bird = ("crow", "wren")[number % 2]
        (folder / "birds" / bird).mkdir(parents=True, exist_ok=True)
        picture = folder / "birds" / bird / f"{number}.png"
        Image.fromarray(sample.images[number]).save(picture)
        soundfile.write(folder / f"{number}.wav", sample.audio[number], 8000)
        lines.append(f"{picture.relative_to(folder)},{number}.wav,{bird}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")


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
