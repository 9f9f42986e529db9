"""Which library is meant, and running a piece of work on it until it is done or Ctrl-C."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from encephalon.library.library import Library

__all__ = ["AsJson", "Etcd", "Minio", "Namespace", "Place", "StateDir", "placed", "run"]

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar="ENCEPHALON_STATE_DIR",
        help="The embedded library's folder. Default: yours.",
        rich_help_panel="Where the library is",
    ),
]
Etcd = Annotated[
    str | None,
    typer.Option(
        envvar="ENCEPHALON_ETCD",
        metavar="HOST:PORT",
        help="Records in etcd.",
        rich_help_panel="Where the library is",
    ),
]
Minio = Annotated[
    str | None,
    typer.Option(
        envvar="ENCEPHALON_MINIO",
        metavar="URL",
        help="Objects in MinIO or any S3: minio://access:secret@host:port/bucket, ?secure=1 for TLS.",
        rich_help_panel="Where the library is",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        envvar="ENCEPHALON_NAMESPACE",
        help="A library of its own in the same stores. Default: default.",
        rich_help_panel="Where the library is",
    ),
]


@dataclass(frozen=True, slots=True)
class Place:
    """The stores as they were typed; what is not named is embedded in the state folder."""

    state_dir: Path | None = None
    etcd: str | None = None
    minio: str | None = None
    namespace: str | None = None

    @property
    def folder(self) -> Path:
        from encephalon.state.embedded import default_state_dir

        return self.state_dir or default_state_dir()

    @property
    def state(self) -> str:
        """The URL of the key-value store. InvalidInput for what is no address."""
        from encephalon.cli.addresses import etcd_address
        from encephalon.state.embedded import key_value_url

        return etcd_address(self.etcd) if self.etcd else key_value_url(self.folder)

    @property
    def objects(self) -> str:
        """The URL of the object store. InvalidInput for what is no address, and where records would outreach it."""
        from encephalon.cli.addresses import minio_address
        from encephalon.core.errors import InvalidInput
        from encephalon.state.embedded import objects_url

        if self.etcd and not self.minio:
            raise InvalidInput(
                "--etcd keeps records where other machines see them, and their bytes must be there too; "
                "give --minio as well"
            )
        return minio_address(self.minio) if self.minio else objects_url(self.folder)


def placed(command: Callable[..., None]) -> Callable[..., None]:
    """Makes of `command(place, ...)` a command with the options of `Place` in place of its first parameter.

    They are the same fifteen times, and typer reads them from the signature.
    """
    options = {"state_dir": StateDir, "etcd": Etcd, "minio": Minio, "namespace": Namespace}

    def placing(**given: Any) -> None:
        command(Place(**{name: given.pop(name) for name in options}), **given)

    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())[1:]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in options.items()
    ]
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    placing.__name__, placing.__doc__ = command.__name__, command.__doc__
    placing.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
    placing.__signature__ = signature.replace(parameters=[*keyword_only, *added])  # type: ignore[attr-defined]
    return placing


def run(place: Place, work: Callable[[Library], Coroutine[Any, Any, T]]) -> T:
    """Opens the library, does the work on it and closes it; a signal ends the work tidily as KeyboardInterrupt."""
    from encephalon.cli import interrupts
    from encephalon.core import logs
    from encephalon.library.open import open_library
    from encephalon.state.embedded import prepare

    logs.configure(level="ERROR")  # what hinders is said in one sentence

    async def command(interrupted: interrupts.Interrupts) -> T:
        if not (place.etcd and place.minio):
            prepare(place.folder)
        cache = place.state_dir / "cache" if place.state_dir else None
        async with open_library(
            place.state, place.objects, namespace=place.namespace or "default", cache_dir=cache
        ) as library:
            return await work(library)

    return interrupts.run(command)
