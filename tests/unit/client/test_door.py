from __future__ import annotations

import subprocess
import sys

import pytest

import encephalon


def test_every_name_of_the_door_is_there() -> None:
    for name in encephalon.__all__:
        assert getattr(encephalon, name).__module__.startswith("encephalon.")
    assert dir(encephalon) == sorted(encephalon.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'disconnect'"):
        _ = encephalon.disconnect


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, encephalon; print([name for name in ('grpc', 'numpy', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_client_imports_no_torch() -> None:
    code = "import sys, encephalon.client, encephalon.local; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
