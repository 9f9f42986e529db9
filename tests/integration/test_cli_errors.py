"""What goes wrong at the command line is one sentence and an exit code: 1 when it failed, 2 when it cannot be meant."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.running import EXAMPLES
from tests.servers import free_port

DIGITS, PAIR = EXAMPLES / "digits.yaml", EXAMPLES / "pair.yaml"


def encephalon(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "encephalon.cli", *map(str, arguments)]
    return subprocess.run(
        words, capture_output=True, text=True, timeout=50, check=False, env={**os.environ, **environment}
    )


def refused(code: int, sentence: str, *arguments: object, **environment: str) -> str:
    """Runs the command and returns what it said, which is one line."""
    ended = encephalon(*arguments, **environment)
    lines = [line for line in ended.stderr.splitlines() if not line.endswith(" ...")]  # that something has begun
    assert sentence in ended.stderr, ended.stderr
    assert len(lines) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert ended.returncode == code
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fly"], "No such command 'fly'"),
        (["up"], "Missing argument 'BRAIN'"),
        (["up", DIGITS, "--nonsense"], "No such option: --nonsense"),
        (["up", "/no/such.yaml"], "cannot read the manifest /no/such.yaml: No such file or directory"),
        (["up", "/"], "cannot read the manifest /: Is a directory"),
        (["up", DIGITS, "--colocated", "--distributed"], "exclude each other"),
        (["up", DIGITS, "--replicas", "visual"], "--replicas visual=2"),
        (["up", DIGITS, "--replicas", "nose=2"], "has no region 'nose'; its regions are visual, auditory, association"),
        (["up", DIGITS, "--replicas", "visual=0"], "cannot have 0 replicas"),
        (["up", "digits", "--etcd", "127.0.0.1:1"], "name an object store as well"),
        (["up", DIGITS, "--etcd", "nowhere"], "--etcd 127.0.0.1:2379"),
        (["up", DIGITS, "--minio", "nowhere"], "minio://access:secret@host:port/bucket"),
        (["up", DIGITS, "--listen", "9000"], "'9000' is no address"),
        (["up", DIGITS, "--metrics-port", "70000"], "--metrics-port"),
        (["infer", "digits", "--input", "image"], "--input image=digit.png"),
        (["infer", "digits", "--input", "a=x", "--input", "a=y"], "an input is given twice"),
        (["infer", "digits"], "Missing option '--input'"),
        (["down", "digits"], "brain 'digits' does not run here"),
        (["demo", "--pairs", "100000"], "--pairs is 100000, the sample has"),
        (["demo", "--pairs", "0"], "--pairs"),
        (["data", "get", "avmnist"], "Missing option '--to'"),
        (["data", "get", "avmnist", "--from", "/no/such", "--to", "{tmp}/set"], "/no/such"),
        (["data", "get", "avmnist", "--from", "/no/such", "--to", "{tmp}/set", "--rank", "0"], "rank is 0"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, arguments: list[object], sentence: str) -> None:
    words = [str(argument).format(tmp=tmp_path) for argument in arguments]
    refused(2, sentence, *words, ENCEPHALON_STATE_DIR=str(tmp_path))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("brain: [", "line 1"),
        ("", "the manifest is empty"),
        (DIGITS.read_text().replace("to: visual.image}", "to: visual.imago}"), "image -> visual.imago"),
        (DIGITS.read_text().replace("vision/002", "vision/999"), "line 10: region 'visual'"),
        (DIGITS.read_text().replace("UINT8", "UINT9"), "datatype"),
    ],
)
def test_a_bad_manifest_names_the_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    said = refused(2, sentence, "up", path, "--state-dir", tmp_path)
    assert "bad.yaml" in said


@pytest.fixture
def taken() -> Iterator[str]:
    """An address at which somebody else listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_port_in_use(tmp_path: Path, taken: str) -> None:
    refused(1, f"{taken} is in use by another program", "up", PAIR, "--listen", taken, "--state-dir", tmp_path)


def test_a_metrics_port_in_use(tmp_path: Path, taken: str) -> None:
    port = taken.rpartition(":")[2]
    refused(1, port, "up", PAIR, "--listen", "127.0.0.1:0", "--metrics-port", port, "--state-dir", tmp_path)


def test_an_unreachable_etcd(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    refused(1, address, "up", PAIR, "--listen", "127.0.0.1:0", "--etcd", address, "--state-dir", tmp_path)


def test_an_unreachable_minio_is_named_without_its_secret(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    store = f"minio://key:topsecret@{address}/weights"
    said = refused(1, address, "up", DIGITS, "--listen", "127.0.0.1:0", "--minio", store, "--state-dir", tmp_path)
    assert "topsecret" not in said


def test_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(1, "choose another with --state-dir", "up", PAIR, "--state-dir", tmp_path / "file" / "state")


def test_weights_that_are_not_there_name_the_region(tmp_path: Path) -> None:
    path = tmp_path / "digits.yaml"
    path.write_text(DIGITS.read_text().replace("network: vision/002", "network: vision/002, weights: gone.safetensors"))
    refused(1, "visual-0 did not start", "up", path, "--listen", "127.0.0.1:0", "--state-dir", tmp_path)


def test_nobody_listens(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    np.save(tmp_path / "x.npy", np.zeros((2, 2), np.uint8))
    refused(
        1,
        f"no coordinator answers on {address}",
        *("infer", "digits", "--input", f"image={tmp_path / 'x.npy'}", "--address", address),
    )
