"""From a file of any known format to one that `load_network` takes, and has taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from encephalon.areas.catalog import load_network
from encephalon.areas.importing.files import Format, existing, format_of
from encephalon.areas.importing.naming import renamed
from encephalon.areas.network import Network
from encephalon.core.contract import Contract
from encephalon.core.errors import EncephalonError, InvalidInput
from encephalon.core.wire.datatypes import dtype_of
from encephalon.library.area import ONNX
from encephalon.library.areas import find_area

__all__ = ["Imported", "convert"]

ANY_SIZE = 32
"""What a trial puts for a dimension of any size; a region's warming up does the same."""
TRIAL_ROWS = (1, 2)


@dataclass(frozen=True, slots=True)
class Imported:
    """A network that was loaded once and has answered."""

    path: Path
    area: str
    code: str
    architecture: str
    """Title of the code, for example LeNet5."""
    arguments: Mapping[str, Any]
    """What `load_network` is to be called with beside the file."""
    contract: Contract
    """With the sizes that the weights fix."""
    format: str
    """Of the file written: "safetensors" or "onnx"."""
    notes: tuple[str, ...] = ()


class Converted(NamedTuple):
    data: bytes
    arguments: Mapping[str, Any]
    format: str
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Asked:
    source: Path
    area: str
    code: str
    cfg: Path | None
    arguments: Mapping[str, Any]
    rename: Mapping[str, str]

    @property
    def network(self) -> str:
        return f"{self.area}/{self.code}"


def convert(
    source: Path,
    *,
    area: str,
    code: str,
    out: Path,
    cfg: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    rename: Mapping[str, str] | None = None,
) -> Imported:
    """Writes `source` to `out` as a file that `area/code` runs.

    `rename` gives beginnings of tensors' names new ones; for ONNX, whole names of inputs and outputs. Raises `NotFound`
    for a missing file, area or code, `InvalidInput` for what does not fit, is damaged or is unsafe, and `Unsupported`
    for a graph that cannot be served. `out` is written last and only then.
    """
    asked = Asked(Path(source), area, code, cfg, arguments or MappingProxyType({}), rename or MappingProxyType({}))
    title = title_of(asked)
    converted = read(asked)
    network = load_network(area, code, converted.data, converted.arguments)
    try_out(network, asked)
    out = Path(out)
    part = out.with_name(f"{out.name}.part")
    part.write_bytes(converted.data)
    part.replace(out)
    return Imported(
        out, area, code, title, converted.arguments, network.contract, converted.format, tuple(converted.notes)
    )


def title_of(asked: Asked) -> str:
    area = find_area(asked.area)
    area.check(asked.code)
    return area.networks[asked.code]


def read(asked: Asked) -> Converted:
    form = format_of(existing(asked.source))
    if (form == "onnx") != (asked.code == ONNX):
        raise InvalidInput(
            f"{asked.source.name} is {'an ONNX graph' if form == 'onnx' else 'no ONNX graph'}, but the code is "
            f"{asked.code}; {ONNX} is the code of ONNX graphs, and of nothing else"
        )
    if (form == "darknet") != (asked.cfg is not None):
        raise InvalidInput(
            "Darknet's weights need their cfg file" if form == "darknet" else "a cfg goes only with Darknet"
        )
    return onnx(asked) if form == "onnx" else tensors(asked, form)


def onnx(asked: Asked) -> Converted:
    arguments = dict(asked.arguments)
    if asked.rename:
        arguments["rename"] = dict(asked.rename)
    return Converted(asked.source.read_bytes(), arguments, "onnx", [])


def tensors(asked: Asked, form: Format) -> Converted:
    """Everything else becomes safetensors, with the arguments in the file too."""
    from encephalon.areas import weights
    from encephalon.areas.importing.darknet import read_cfg_file, read_darknet
    from encephalon.areas.importing.state_dict import read_state_dict

    arguments, version = dict(asked.arguments), ""
    notes: list[str] = []
    if form == "darknet":
        cfg = read_cfg_file(asked.cfg or Path())
        arguments["cfg"] = cfg
        held, notes = read_darknet(asked.source, cfg)
    elif form == "torch":
        held, notes = read_state_dict(asked.source)
    else:
        found = weights.read(asked.source)
        if found.architecture not in ("", asked.network):
            raise InvalidInput(f"{asked.source.name} holds {found.architecture}, expected {asked.network}")
        held, version = found.tensors, found.version
        arguments = {**found.arguments, **arguments}
    if not held:
        raise InvalidInput(f"{asked.source.name} holds no tensors")
    data = weights.pack(renamed(held, asked.rename), asked.network, arguments, version)
    return Converted(data, arguments, "safetensors", notes)


def try_out(network: Network, asked: Asked) -> None:
    """InvalidInput unless it answers zeros with what its contract says, row for row."""
    for rows in TRIAL_ROWS:
        inputs = {
            spec.name: np.zeros(
                (rows, *(ANY_SIZE if size < 0 else size for size in spec.shape[1:])), dtype_of(spec.datatype)
            )
            for spec in network.contract.inputs
        }
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        try:
            answer = network(inputs)
            found = {name: array.shape for name, array in answer.items()}
        except EncephalonError as error:
            raise InvalidInput(f"{asked.network} failed on a trial with {shapes}: {error.message}") from error
        except Exception as error:
            first = " ".join(str(error).split())[:300]
            raise InvalidInput(f"{asked.network} failed on a trial with {shapes}: {first}") from error
        for spec in network.contract.outputs:
            if found.get(spec.name, ())[:1] != (rows,):
                raise InvalidInput(
                    f"{asked.network} gave '{spec.name}' as {list(found.get(spec.name, ()))} for {rows} rows; the "
                    "first dimension must be the batch"
                )
