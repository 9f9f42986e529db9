"""`encephalon.train`, with processes that only pretend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import encephalon
from encephalon.local.training import packages
from tests.unit.local.training.pretending import pretend


@pytest.mark.slow
def test_a_run_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    told: list[Any] = []
    result = encephalon.train(
        "digits",
        "avmnist-sample",
        run="mine",
        epochs=2,
        optimizer="sgd",
        optimizer_arguments={"lr": 0.1},
        state_dir=tmp_path,
        progress=told.append,
        report=tmp_path / "report",
    )
    assert (result.run, result.state, result.steps, result.samples) == ("mine", "succeeded", 10, 200)
    assert (result.loss, result.accuracy) == (0.5, 0.75)
    assert result.samples_per_second == pytest.approx(250)
    assert result.made["brain"] == "brain:digits@2"
    assert told[-1].version == 10


@pytest.mark.slow
def test_a_run_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, controller="fail")
    with pytest.raises(encephalon.FailedPrecondition, match="run 'digits-1' failed: worker-1, region 'visual'"):
        encephalon.train("digits", "avmnist-sample", epochs=1, state_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("digits",), {}, "a run needs a brain and a data set"),
        (("digits", "avmnist-sample"), {"worker": 3}, "there is no setting 'worker' of a run; did you mean workers"),
        ((), {"resume": "mine"}, "there is no run 'mine'; there are none yet"),
    ],
)
def test_what_cannot_be_is_an_error(
    tmp_path: Path, arguments: tuple[str, ...], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(encephalon.EncephalonError, match=sentence):
        encephalon.train(*arguments, state_dir=tmp_path, **options)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "NEEDED", ("json", "torch_of_tomorrow"))
    with pytest.raises(encephalon.FailedPrecondition, match=r"needs torch_of_tomorrow, .*pip install 'encephalon\[tr"):
        packages.check_installed()
