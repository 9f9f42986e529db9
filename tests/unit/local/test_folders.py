from __future__ import annotations

from pathlib import Path

import pytest

from encephalon.core.errors import FailedPrecondition
from encephalon.local import folders
from encephalon.local.folders import LONGEST_SOCKET_PATH, Folders, runtime_folder


def test_sockets_stay_within_the_kernels_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    monkeypatch.setattr(folders.tempfile, "gettempdir", lambda: str(deep))
    with runtime_folder() as folder:
        assert len(str(folder / "99999.sock")) <= LONGEST_SOCKET_PATH
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_a_short_runtime_folder_of_the_platform_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with runtime_folder() as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
        with runtime_folder() as folder:
            assert folder.parent == short


def test_a_state_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match="choose another with --state-dir"):
        Folders(tmp_path / "file" / "state").prepare("digits")
