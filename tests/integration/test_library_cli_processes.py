"""`encephalon library` as processes: watches, shells, weights that another process reads; and on a cluster's stores."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.completion import get_completion_script

from encephalon import open_library
from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.blocking import blocking
from encephalon.library.builtins import WEIGHTS
from encephalon.state.embedded import key_value_url, objects_url
from tests.command_line import CommandLine
from tests.running import EXAMPLES
from tests.servers import etcd_server, juicefs_gateway

ENCEPHALON = (sys.executable, "-m", "encephalon.cli")
START_S = 20.0


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ENCEPHALON_")}
    return {**kept, "ENCEPHALON_STATE_DIR": str(folder)}


@asynccontextmanager
async def watching(folder: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *ENCEPHALON, "library", "watch", *words, stdout=-1, stderr=-1, env=environment(folder)
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("sign", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
async def test_a_watch_tells_each_change_until_it_is_interrupted(tmp_path: Path, sign: signal.Signals) -> None:
    stores = key_value_url(tmp_path), objects_url(tmp_path)
    scene = pb.Scene(document="{}", modalities=["image"], goal="anything")
    draft = pb.Record(id=pb.Reference(kind=pb.KIND_SCENE, name="hall"), scene=scene)
    async with open_library(*stores, cache_dir=tmp_path / "cache") as library, watching(tmp_path, "--json") as watch:
        assert watch.stdout is not None

        async def next_line() -> dict[str, Any]:
            assert watch.stdout is not None
            return dict(json.loads(await asyncio.wait_for(watch.stdout.readline(), START_S)))

        assert (await next_line())["what"] == "watching"
        await library.add(draft)
        told = await next_line()
        assert (told["what"], told["kind"], told["name"], told["version"]) == ("added", "scene", "hall", 1)
        await library.alias("scene:hall@1", "best")
        told = await next_line()
        assert (told["what"], told["alias"], told["version"]) == ("alias moved", "best", 1)
        watch.send_signal(sign)
        assert await asyncio.wait_for(watch.wait(), START_S) == 0
        assert watch.stderr is not None
        assert await watch.stderr.read() == b""


def test_weights_are_read_by_a_process_that_has_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = CommandLine(tmp_path / "state", capsys, monkeypatch)
    weights = Path(shutil.copy(WEIGHTS / "vision-002.safetensors", tmp_path / "eyes.safetensors"))
    manifest = tmp_path / "mine.yaml"
    digits = (EXAMPLES / "digits.yaml").read_text().replace("brain: digits", "brain: mine")
    manifest.write_text(digits.replace("network: vision/002", "network: vision/002, weights: eyes.safetensors"))
    said = command.library("add", manifest)
    assert said.out == "added: brain:mine@1\n"
    assert "region 'visual' runs network:mine-visual@1" in said.err
    record = command.json("show", "mine-visual")
    assert record["network"]["architecture"] == "LeNet5"
    assert record["network"]["weights"]["size"] == weights.stat().st_size
    assert [parent["record"]["name"] for parent in record["parents"]] == ["vision"]


def test_the_same_on_the_stores_of_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = CommandLine(tmp_path, capsys, monkeypatch)
    path = tmp_path / "hall.yaml"
    path.write_text("scene: hall\ngoal: Find the door\nmodalities: [image]\n")
    out, back = tmp_path / "out.zip", tmp_path / "back.zip"
    with blocking(etcd_server()) as etcd, blocking(juicefs_gateway()) as minio:
        place = ("--etcd", etcd.address, "--minio", minio.url, "--namespace", "team")
        assert re.search(r"^digits +1 +production ", command.library("ls", "brain", *place).out, re.MULTILINE)
        assert command.library("add", path, "--alias", "best", *place).out == "added: scene:hall@1\n"
        exported = command.json("export", "hall@best", "digits", "--to", out, *place)
        assert command.json("verify", *place) == {"problems": []}
        assert command.json("gc", "--grace", "0", *place)["objects"] == 0
        assert command.json("du", *place)["unreached"] == 0
        assert not (tmp_path / "state.db").exists()  # nothing is kept here when both stores are elsewhere
        imported = command.json("import", out, "--expect", exported["digest"])
        assert imported["added"] == ["scene:hall@1"]
        command.library("export", "hall", "digits", "--to", back)
    assert back.read_bytes() == out.read_bytes()
    away = command.run("library", "ls", *place)
    assert away.code == 1
    assert etcd.address in away.sentence


def test_bash_completes_names_and_aliases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = CommandLine(tmp_path, capsys, monkeypatch)
    command.library("ls")
    # As `--show-completion` and `--install-completion` give it, for the shell that they find themselves in.
    script = get_completion_script(prog_name="encephalon", complete_var="_ENCEPHALON_COMPLETE", shell="bash")  # noqa: S604 - its name
    assert complete(script, "encephalon", "library", "show", "brain", ":", "dig") == ["digits"]
    assert complete(script, "encephalon", "library", "show", "digits", "@", "pro") == ["production"]


def complete(script: str, *words: str) -> list[str]:
    """What bash offers by the script that we give it; readline takes the breaks of bash for words of their own."""
    typed = " ".join(f"'{word}'" for word in words)
    asked = f"""
encephalon() {{ {" ".join(ENCEPHALON)} "$@"; }}
{script.replace("env COMP_WORDS", "COMP_WORDS")}
COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}
_encephalon_completion encephalon
printf '%s\n' "${{COMPREPLY[@]}}"
"""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    ended = subprocess.run([bash, "--norc", "-c", asked], capture_output=True, text=True, timeout=50, check=True)
    assert ended.stderr == ""
    return ended.stdout.split()
