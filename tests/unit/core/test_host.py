from __future__ import annotations

import subprocess
import sys

from encephalon.core.host import host_identity
from encephalon.core.version import installed_version


def test_two_processes_on_one_machine_agree() -> None:
    program = "from encephalon.core.host import host_identity; print(host_identity())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert other.stdout.strip() == host_identity()


def test_there_is_always_a_version() -> None:
    assert installed_version()
