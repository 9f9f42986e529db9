"""`python -m encephalon.areas.importing SOURCE --area vision --code 002 --out FILE`: one network comes in.

The command line, which loads no torch, starts it as a process of its own, which also keeps what a hostile file may do
from everything else.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encephalon.areas.importing.convert import Imported, convert
from encephalon.core.errors import EncephalonError

MEMORY_BYTES, PER_BYTE = 8 << 30, 6
"""torch and onnxruntime reserve some gigabytes of addresses without using them; a file is held in a few copies."""


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    limit_memory(options.source)
    watch = threading.Timer(options.timeout_s, give_up, (options,))
    watch.daemon = True
    watch.start()
    try:
        imported = convert(
            options.source,
            area=options.area,
            code=options.code,
            out=options.out,
            cfg=options.cfg,
            arguments={key: plain(value) for key, value in options.argument},
            rename=dict(options.rename),
        )
    except EncephalonError as error:
        return failed(error.reason, error.message, options.json)
    except MemoryError:
        return failed("InvalidInput", f"{options.source.name} needs more memory than there is", options.json)
    except OSError as error:
        return failed("Unavailable", f"{error.filename or options.out}: {error.strerror or error}", options.json)
    finally:
        watch.cancel()
    sys.stdout.write((json.dumps(view(imported)) if options.json else sentence(imported)) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m encephalon.areas.importing", description=__doc__)
    result.add_argument("source", type=Path, help="a file that ends in .safetensors, .pt, .pth, .weights or .onnx")
    result.add_argument("--area", required=True, help="for example vision; graph for a network with its own contract")
    result.add_argument("--code", required=True, help="three digits; 900 is an ONNX graph, graph/901 a Darknet one")
    result.add_argument("--out", type=Path, required=True, help="the file to write")
    result.add_argument("--cfg", type=Path, help="with Darknet's weights: their cfg file")
    result.add_argument(
        "--argument",
        type=pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the constructor; JSON or text",
    )
    result.add_argument(
        "--rename", type=pair, action="append", default=[], metavar="THEIRS=OURS", help="beginnings of tensors' names"
    )
    result.add_argument(
        "--timeout-s", type=float, default=300.0, help="seconds after which a network is too slow to be tried out"
    )
    result.add_argument("--json", action="store_true", help="the result, or the error, as one JSON object")
    return result


def pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"'{text}' is no NAME=VALUE")
    return key, value


def plain(text: str) -> Any:
    """The JSON value that the text is, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def limit_memory(source: Path) -> None:
    """A small file that asks for much memory is refused instead of killing others."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = MEMORY_BYTES + PER_BYTE * (source.stat().st_size if source.is_file() else 0)
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def give_up(options: argparse.Namespace) -> None:
    """The whole process, for what computes cannot be interrupted."""
    failed("InvalidInput", f"{options.source.name} has not answered within {options.timeout_s:g} s", options.json)
    sys.stdout.flush()
    os._exit(1)


def view(imported: Imported) -> dict[str, Any]:
    return {**dataclasses.asdict(imported), "path": str(imported.path), "arguments": dict(imported.arguments)}


def sentence(imported: Imported) -> str:
    notes = f" ({'; '.join(imported.notes)})" if imported.notes else ""
    return f"{imported.area}/{imported.code} {imported.architecture} is in {imported.path}{notes}"


def failed(reason: str, message: str, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"error": {"reason": reason, "message": message}}) + "\n")
    else:
        sys.stderr.write(f"{' '.join(message.split())}\n")
    return 1


if __name__ == "__main__":
    # Read by torch's libraries when they are loaded: a trial of two rows is not worth threads that wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
