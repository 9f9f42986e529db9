from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from encephalon.areas import load_network
from encephalon.core.errors import Internal, InvalidInput

X = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_identity_gives_the_very_same_array_and_an_offset_marks_a_version() -> None:
    assert load_network("diagnostics", "001")({"x": X})["y"] is X
    shifted = load_network("diagnostics", "001", arguments={"offset": 2})({"x": X})["y"]
    np.testing.assert_array_equal(shifted, X + 2)
    assert shifted.dtype == np.float32


def test_join_adds_what_is_present() -> None:
    join = load_network("diagnostics", "002")
    yes, some, no = np.ones(3, bool), np.array([True, False, True]), np.zeros(3, bool)
    np.testing.assert_array_equal(join({"a": X, "b": X})["y"], 2 * X)
    np.testing.assert_array_equal(join({"a": X, "a.present": yes, "b": X, "b.present": yes})["y"], 2 * X)
    np.testing.assert_array_equal(join({"a": X, "b": X, "b.present": some})["y"], X + X * some[:, None])
    np.testing.assert_array_equal(join({"a": X, "b": np.zeros((3, 1), np.float32), "b.present": no})["y"], X)
    np.testing.assert_array_equal(join({"b": X})["y"], X)
    assert join({"a": X, "b": X})["y"].dtype == np.float32


def test_join_refuses_unlike_widths_and_nothing() -> None:
    join = load_network("diagnostics", "002")
    with pytest.raises(InvalidInput, match="equally wide"):
        join({"a": X, "b": X[:, :1]})
    with pytest.raises(InvalidInput, match="at least one"):
        join({"a": X, "a.present": np.zeros(3, bool)})


@pytest.mark.parametrize(("per", "expected"), [("batch", 0.02), ("row", 0.06)])
def test_delay_costs_what_it_says(per: str, expected: float) -> None:
    delay = load_network("diagnostics", "003", arguments={"delay_ms": 20, "per": per})
    start = time.monotonic()
    assert delay({"x": X})["y"] is X
    assert expected <= time.monotonic() - start < expected + 1


@pytest.mark.parametrize(
    ("fault", "shape"), [("wrong_shape", (6,)), ("wrong_rows", (6, 2)), ("wrong_datatype", (3, 2)), ("none", (3, 2))]
)
def test_faulty_does_what_it_is_told(fault: str, shape: tuple[int, ...]) -> None:
    y = load_network("diagnostics", "004", arguments={"fault": fault})({"x": X})["y"]
    assert y.shape == shape
    assert y.dtype == (np.float64 if fault == "wrong_datatype" else np.float32)


def test_faulty_fails_only_when_triggered() -> None:
    faulty = load_network("diagnostics", "004", arguments={"trigger": 5})
    with pytest.raises(Internal, match="as it was told to"):
        faulty({"x": X})
    np.testing.assert_array_equal(faulty({"x": X[:2]})["y"], X[:2])
    assert load_network("diagnostics", "004", arguments={"fault": "missing_output"})({"x": X}) == {}


@pytest.mark.parametrize(
    ("code", "arguments", "sentence"),
    [
        ("001", {"ofset": 1}, "has no argument 'ofset'; it takes offset"),
        ("001", {"offset": "much"}, "cannot be built with"),
        ("002", {"x": 1}, "it takes none"),
        ("003", {"delay_ms": -1}, "expected 0 to 600000"),
        ("003", {"per": "day"}, "expected batch or row"),
        ("004", {"fault": "explode"}, "expected one of none, raise"),
    ],
)
def test_bad_arguments_are_named(code: str, arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        load_network("diagnostics", code, arguments=arguments)


def test_weights_are_refused() -> None:
    with pytest.raises(InvalidInput, match="has no weights"):
        load_network("diagnostics", "001", b"")


def test_no_torch_is_imported() -> None:
    program = (
        "import sys; from encephalon.areas import load_network; load_network('diagnostics', '001');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
