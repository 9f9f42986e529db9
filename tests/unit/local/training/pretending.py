"""Lets the processes of a run be `pretended`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from encephalon.local.process import Command
from encephalon.local.training.commands import commands
from encephalon.local.training.options import TrainingOptions
from encephalon.training.runs import RunSettings

__all__ = ["pretend"]

ROOT = Path(__file__).resolve().parents[4]


def pretend(patch: pytest.MonkeyPatch, **roles: str) -> None:
    """`roles` are what the processes do: controller="wait", worker="refuse"."""

    def pretended(settings: RunSettings, options: TrainingOptions, regions: Sequence[str]) -> dict[str, list[Command]]:
        more = {f"PRETENDED_{role.upper()}": how for role, how in roles.items()}
        more["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'services'}"
        return {
            role: [
                replace(
                    command,
                    module="tests.unit.local.training.pretended",
                    environment={**command.environment, **more},
                )
                for command in group
            ]
            for role, group in commands(settings, options, regions).items()
        }

    patch.setattr("encephalon.local.training.run.commands", pretended)
