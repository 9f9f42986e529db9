"""The process that keeps what a run has learned, played by a script."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import Internal, Unavailable
from encephalon.training.controller import recording
from encephalon.training.controller.recording import Recording
from encephalon.training.settings import ControlSettings

TELLS = """import json, os, sys
made = {"arguments": " ".join(sys.argv[1:]), "objects": os.environ["ENCEPHALON_OBJECTS"]}
made["history"] = open(sys.argv[-1]).read()
print(json.dumps({"made": made}))
"""
STORE = "minio://user:topsecret@store:9000/bucket"


def played(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recording:
    (tmp_path / "played.py").write_text(script)
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "played.py"} "$@"\n')
    (tmp_path / "python").chmod(0o700)
    monkeypatch.setattr(recording.sys, "executable", str(tmp_path / "python"))
    return Recording(ControlSettings(run="r", state="sqlite:///s", objects=STORE, folder=tmp_path))


async def test_secrets_go_through_the_environment_and_the_history_through_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await played(TELLS, tmp_path, monkeypatch)(pb.RunState(), b"a history")
    assert made["objects"] == STORE
    assert "topsecret" not in made["arguments"]
    assert made["history"] == "a history"


@pytest.mark.parametrize(
    ("reason", "kind"), [("Unavailable", Unavailable), ("Conflict", Unavailable), ("Corrupt", Internal)]
)
async def test_what_may_pass_is_tried_again(
    reason: str, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = f"""print('{{"error": {{"reason": "{reason}", "message": "no room"}}}}'); raise SystemExit(1)"""
    with pytest.raises(kind, match="no room"):
        await played(failing, tmp_path, monkeypatch)(pb.RunState(), b"")


async def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "LONGEST_S", 0.3)
    with pytest.raises(Unavailable, match="could not be recorded within"):
        await asyncio.wait_for(
            played("import signal; signal.pause()", tmp_path, monkeypatch)(pb.RunState(), b""), timeout=20
        )
