"""What is typed about a run, and what becomes of it."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from encephalon.cli.training.commands import CHANGEABLE
from encephalon.cli.training.options import OPTIONS
from encephalon.cli.training.wanted import settings
from encephalon.core.errors import InvalidInput
from encephalon.local.training import CHANGEABLE as CHANGEABLE_THERE
from encephalon.training.runs import RunSettings

GIVEN_OTHERWISE = {"brain", "data", "library"}
LISTS = (list, tuple, dict)


def test_every_setting_of_a_run_has_an_option_and_no_other() -> None:
    assert set(OPTIONS) == set(RunSettings.model_fields) - GIVEN_OTHERWISE
    flags = [get_args(each)[1].default for each in OPTIONS.values()]
    assert len(set(flags)) == len(flags)
    assert frozenset(CHANGEABLE) == CHANGEABLE_THERE


def test_the_help_says_the_default() -> None:
    for name, annotation in OPTIONS.items():
        default, help = RunSettings.model_fields[name].default, get_args(annotation)[1].help
        if isinstance(default, int | float | str) and not isinstance(default, bool) and default != "":
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            assert f"Default: {shown}." in help, name


@pytest.mark.parametrize(
    ("typed", "more", "found"),
    [
        ({"epochs": 3, "workers": None, "learn": None}, {}, {"epochs": 3}),
        ({"validation": "none"}, {}, {"validation": ""}),
        ({"test": "none"}, {}, {"test": "none"}),
        ({"learn": ["visual", "auditory"]}, {}, {"learn": ("visual", "auditory")}),
        ({"inputs": ["image=picture"]}, {}, {"inputs": {"image": "picture"}}),
        ({"targets": ["a", "b=0.5"]}, {}, {"targets": {"a": 1.0, "b": 0.5}}),
        ({}, {"lr": 0.1}, {"optimizer_arguments": {"lr": 0.1}}),
        ({"optimizer": "sgd"}, {}, {"optimizer": "sgd", "optimizer_arguments": {}}),
        (
            {"optimizer_arguments": ["momentum=0.9", "nesterov=true", "betas=[0.9, 1]", "fused=None"]},
            {"lr": 0.1},
            {
                "optimizer_arguments": {
                    "lr": 0.1,
                    "momentum": 0.9,
                    "nesterov": True,
                    "betas": [0.9, 1],
                    "fused": None,
                }
            },
        ),
        ({}, {"deterministic": True}, {"plan": "fixed", "mode": "sync", "threads": 1}),
    ],
)
def test_only_what_was_typed_is_set(typed: dict[str, Any], more: dict[str, Any], found: dict[str, Any]) -> None:
    assert settings(typed, **more) == found
    RunSettings.checked(run="first", brain="brain:digits@1", data="data_set:d@1", **found)


@pytest.mark.parametrize(
    ("typed", "more", "sentence"),
    [
        ({"inputs": ["image"]}, {}, "--input image cannot be read; write it as --input image=picture"),
        ({"targets": ["a=much"]}, {}, "--target a=much has a weight that is no number"),
        ({"optimizer_arguments": ["lr=1", "lr=2"]}, {}, "--optimizer-arg gives 'lr' twice"),
        (
            {"mode": "async"},
            {"deterministic": True},
            "--deterministic means --mode sync, which goes not with --mode async",
        ),
    ],
)
def test_what_cannot_be_meant_is_said(typed: dict[str, Any], more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        settings(typed, **more)
