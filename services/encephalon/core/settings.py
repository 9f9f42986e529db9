"""Settings of a process: a flag wins over an environment variable, which wins over the default. Read in `__main__`
only.

Each field is documented by the string below it (meaning, unit, why this default); `--help` prints it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict, SettingsError

from encephalon.core.errors import InvalidInput

__all__ = ["PREFIX", "Settings"]

PREFIX = "ENCEPHALON_"


class Settings(BaseSettings):
    """Base of every service's settings."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_enforce_required=False,  # an environment variable may give it; validation says what is missing
        cli_exit_on_error=False,
        cli_show_env_vars=True,
    )

    @classmethod
    def read(cls, arguments: Sequence[str] | None = None, program: str | None = None) -> Self:
        """From the command line `arguments` (None means `sys.argv`) and the environment. Raises `InvalidInput`: one
        sentence.
        """
        try:
            source: CliSettingsSource[Any] = CliSettingsSource(
                cls, cli_prog_name=program, cli_parse_args=list(_given(arguments))
            )
            return cls(_cli_settings_source=source)  # type: ignore[call-arg]
        except ValidationError as error:
            raise InvalidInput("; ".join(_sentence(cls, dict(item)) for item in error.errors())) from error
        except SettingsError as error:
            raise InvalidInput(f"{_reason(error)}; --help lists the settings") from error

    @classmethod
    def read_or_exit(cls, arguments: Sequence[str] | None = None, program: str | None = None) -> Self:
        """As `read`, but ends the process with code 2 and one sentence on stderr."""
        try:
            return cls.read(arguments, program)
        except InvalidInput as error:
            sys.stderr.write(f"{error.message}\n")
            sys.exit(2)


def _given(arguments: Sequence[str] | None) -> Sequence[str]:
    return sys.argv[1:] if arguments is None else arguments


def _sentence(cls: type[BaseSettings], error: dict[str, object]) -> str:
    location = error["loc"]
    path = [str(part) for part in location] if isinstance(location, tuple) else []
    name = path[0] if path else ""
    flag, variable = f"--{name.replace('_', '-')}", f"{PREFIX}{name.upper()}"
    if error["type"] == "missing":
        return f"{flag} is missing; give it, or set {variable}"
    if not name:
        return str(error["msg"]).removeprefix("Value error, ")
    return f"{flag} (or {variable}) is {error['input']!r}: {str(error['msg']).removeprefix('Value error, ')}"


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()).removeprefix("error parsing CLI: ")
