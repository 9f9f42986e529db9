"""The commands and their options."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from encephalon.cli.completion import complete_brain, complete_network, words_as_typed
from encephalon.cli.failures import reported
from encephalon.cli.library import app as library
from encephalon.cli.training import app as runs
from encephalon.cli.training import train

__all__ = ["main"]

DEFAULT_LISTEN = "127.0.0.1:9000"

app = typer.Typer(
    name="encephalon",
    help="Runs brains: several expert networks for several senses, each a microservice, made into one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data = typer.Typer(help="Data sets.", no_args_is_help=True)
data_get = typer.Typer(help="Builds a data set from its raw files.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(library, name="library")
app.add_typer(runs, name="runs")
data.add_typer(data_get, name="get")

StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir", envvar="ENCEPHALON_STATE_DIR", help="Where brains keep state and logs. Default: yours."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Colocated = Annotated[bool, typer.Option("--colocated", help="Every region in the coordinator's process.")]
Distributed = Annotated[bool, typer.Option("--distributed", help="A process per region (the manifest's default).")]


@app.command()
def demo(
    pairs: Annotated[int | None, typer.Option(min=1, help="Pairs of the sample to send. Default: all.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Pictures to draw.")] = 8,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests on their way at the same time.")] = 4,
    colocated: Colocated = False,
    as_json: AsJson = False,
) -> None:
    """Starts a brain that sees and hears digits, and shows what it makes of real ones."""
    from encephalon.cli import demo as command

    command.run(pairs=pairs, show=show, concurrency=concurrency, colocated=colocated, as_json=as_json)


@app.command()
def up(
    brain: Annotated[
        str,
        typer.Argument(
            help="A brain of the library, as digits or digits@production, whose alias is followed; or a manifest, "
            "BRAIN.yaml.",
            metavar="BRAIN",
            autocompletion=complete_brain,
        ),
    ],
    listen: Annotated[
        str, typer.Option(envvar="ENCEPHALON_LISTEN", help="host:port of the coordinator; port 0 takes a free one.")
    ] = DEFAULT_LISTEN,
    colocated: Colocated = False,
    distributed: Distributed = False,
    replicas: Annotated[
        list[str] | None, typer.Option(metavar="REGION=N", help="How many of a region; can be repeated.")
    ] = None,
    etcd: Annotated[
        str | None,
        typer.Option(envvar="ENCEPHALON_ETCD", metavar="HOST:PORT", help="Discovery in etcd, not in a file."),
    ] = None,
    minio: Annotated[
        str | None,
        typer.Option(
            envvar="ENCEPHALON_MINIO",
            metavar="URL",
            help="Weights in MinIO or any S3: minio://access:secret@host:port/bucket, ?secure=1 for TLS.",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            envvar="ENCEPHALON_NAMESPACE",
            help="Brains of one namespace see each other and share its library. Default: a new one, and the library "
            "'default'.",
        ),
    ] = None,
    state_dir: StateDir = None,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the coordinator's Prometheus metrics; 0 takes a free one.")
    ] = 0,
    start_timeout: Annotated[float, typer.Option(min=1.0, help="Seconds until the brain must be ready.")] = 120.0,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready, and leave it running.")
    ] = False,
) -> None:
    """Runs a brain on this machine until Ctrl-C."""
    from encephalon.cli import up as command

    options = command.options(
        listen=listen,
        colocated=colocated,
        distributed=distributed,
        replicas=replicas or [],
        etcd=etcd,
        minio=minio,
        namespace=namespace,
        state_dir=state_dir,
        metrics_port=metrics_port,
        start_timeout_s=start_timeout,
    )
    if detach:
        command.detached(brain, options, arguments=[item for item in sys.argv[1:] if item not in ("--detach", "-d")])
    else:
        command.foreground(brain, options)


@app.command()
def status(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Shows the brains that run on this machine."""
    from encephalon.cli import status as command

    command.run(state_dir, as_json=as_json)


@app.command()
def down(
    brain: Annotated[
        str | None, typer.Argument(help="The brain's name. Default: every brain of the state folder.")
    ] = None,
    state_dir: StateDir = None,
) -> None:
    """Stops brains: they finish what is in flight and end."""
    from encephalon.cli import down as command

    command.run(brain, state_dir)


Etcd = Annotated[
    str | None, typer.Option(envvar="ENCEPHALON_ETCD", metavar="HOST:PORT", help="The library's records in etcd.")
]
Minio = Annotated[
    str | None, typer.Option(envvar="ENCEPHALON_MINIO", metavar="URL", help="The library's objects in MinIO or any S3.")
]
Patience = Annotated[float, typer.Option(min=1.0, help="Seconds until the brain must answer with the other version.")]


@app.command()
def rollback(
    brain: Annotated[str, typer.Argument(help="A brain of the library.", autocompletion=complete_brain)],
    alias: Annotated[
        str | None, typer.Option(help="Which alias moves back. Default: the one that is followed.")
    ] = None,
    timeout: Patience = 120.0,
    etcd: Etcd = None,
    minio: Minio = None,
    namespace: Annotated[str | None, typer.Option(envvar="ENCEPHALON_NAMESPACE", help="Of the library.")] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Lets a brain be again what it was before its alias was moved; if it runs here, it follows at once."""
    from encephalon.cli import rollback as command
    from encephalon.cli.library.place import Place

    place = Place(state_dir=state_dir, etcd=etcd, minio=minio, namespace=namespace)
    command.run(brain, alias, place, timeout_s=timeout, as_json=as_json)


@app.command()
def swap(
    regions: Annotated[
        list[str], typer.Argument(help="visual with --network, or several as visual=vision/003.", metavar="REGION...")
    ],
    network: Annotated[
        str | None, typer.Option(help="A network of the library, of the same area.", autocompletion=complete_network)
    ] = None,
    brain: Annotated[str | None, typer.Option(help="Which running brain. Default: the only one.")] = None,
    alias: Annotated[str | None, typer.Option(help="Which alias moves. Default: the one that it follows.")] = None,
    timeout: Patience = 120.0,
    etcd: Etcd = None,
    minio: Minio = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Puts another network into a region of a running brain, as a new version of the brain, without losing a request.

    When the brain cannot take it, it stays what it was.
    """
    from encephalon.cli import swap as command
    from encephalon.cli.library.place import Place

    place = Place(state_dir=state_dir, etcd=etcd, minio=minio)
    command.run(regions, network, brain, alias, place, timeout_s=timeout, as_json=as_json)


@app.command()
def infer(
    brain: Annotated[str, typer.Argument(help="The brain's name.")],
    inputs: Annotated[
        list[str],
        typer.Option("--input", "-i", metavar="NAME=FILE", help="A .png, .wav or .npy file; can be repeated."),
    ],
    address: Annotated[
        str | None,
        typer.Option(
            envvar="ENCEPHALON_ADDRESS", help="host:port of the coordinator. Default: where the brain runs here."
        ),
    ] = None,
    sample_rate: Annotated[int, typer.Option(min=1, help="Hz that the brain expects of .wav files.")] = 8000,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the answer.")] = 30.0,
    state_dir: StateDir = None,
) -> None:
    """Sends files to a brain and prints its answer as JSON."""
    from encephalon.cli import infer as command

    command.run(brain, inputs, address=address, sample_rate=sample_rate, timeout_s=timeout, state_dir=state_dir)


@app.command()
def version() -> None:
    """Prints the version."""
    from encephalon.core.version import installed_version

    typer.echo(f"encephalon {installed_version()}")


@app.command()
def schema() -> None:
    """Prints the JSON schema of brain manifests, for editors."""
    import json

    from encephalon.library.brains import schema as manifest_schema

    typer.echo(json.dumps(manifest_schema(), indent=2))


app.command("train")(train)


@data_get.command()
def avmnist(
    destination: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the data set is put.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="Raw files: mnist/, fsdd/, esc10/. Default: download them."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides which recording and noise each pair draws.")] = None,
    snr_db: Annotated[float | None, typer.Option(help="Speech over noise, in dB.")] = None,
    rank: Annotated[int | None, typer.Option(help="Principal components that a picture keeps.")] = None,
    train_pairs: Annotated[int | None, typer.Option(help="Size of the training split.")] = None,
    test_pairs: Annotated[int | None, typer.Option(help="Size of the test split.")] = None,
    window_seconds: Annotated[float | None, typer.Option(help="Length of every sound.")] = None,
) -> None:
    """Builds AV-MNIST: reduced handwritten digits with spoken digits in noise."""
    from encephalon.cli import data as command
    from encephalon.library.avmnist import Parameters

    given = {
        "seed": seed,
        "snr_db": snr_db,
        "rank": rank,
        "train_pairs": train_pairs,
        "test_pairs": test_pairs,
        "window_seconds": window_seconds,
    }
    parameters = Parameters.from_dict({name: value for name, value in given.items() if value is not None})
    command.avmnist(source, destination, parameters)


def main() -> None:
    """Runs the command; ends the process with 0, 1 (it failed) or 2 (it was asked for wrongly)."""
    words_as_typed(os.environ)
    sys.exit(reported(lambda: app(standalone_mode=False, prog_name="encephalon")))
