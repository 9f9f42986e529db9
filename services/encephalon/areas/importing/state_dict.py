"""PyTorch's state dicts: tensors out of a pickle that may hold nothing else that matters."""

from __future__ import annotations

import math
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from encephalon.areas.importing.files import existing
from encephalon.core.errors import InvalidInput

__all__ = ["read_state_dict"]

NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
"""Under which checkpoints keep their tensors, the likeliest first."""

LEVELS = 3
"""How deep they may keep them; a pickle can hold itself, and be without end."""

UNFOLDED = 2
"""Times the file's bytes that all tensors may have: tied weights are in a file once."""

SAVE_TENSORS = "load it where it was made and save its tensors alone: torch.save(model.state_dict(), FILE)"


def read_state_dict(path: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors by name, and notes on what was left out. InvalidInput for what is no state dict, or is unsafe."""
    loaded = load(path)
    notes: list[str] = []
    for deeper in reversed(range(LEVELS)):
        inner = next((key for key in NESTED if holds_tensors(loaded, key, deeper)), None)
        if inner is None:
            break
        loaded = loaded[inner]
        notes.append(f"took the tensors under '{inner}'")
    if not isinstance(loaded, Mapping):
        raise InvalidInput(f"{path.name} holds {type(loaded).__name__}, expected tensors by name; {SAVE_TENSORS}")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InvalidInput(f"{path.name} holds no tensors by name; {SAVE_TENSORS}")
    if len(tensors) < len(loaded):
        notes.append(f"left out {len(loaded) - len(tensors)} entries that are no tensors")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        notes.append("took 'module.' off every name")
    check_sizes(path, tensors)
    return apart(tensors), notes


def holds_tensors(value: Any, key: str, deeper: int) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get(key), Mapping):
        return False
    inner = value[key]
    if any(isinstance(item, torch.Tensor) for item in inner.values()):
        return True
    return deeper > 0 and any(holds_tensors(inner, name, deeper - 1) for name in NESTED)


def load(path: Path) -> Any:
    """What `torch.load` gives when it may build tensors and containers only."""
    zipped = is_zip(existing(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other protocols: either it loads or it does not
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # whatever a damaged pickle raises
        raise InvalidInput(refusal(path, str(error))) from error


def is_zip(path: Path) -> bool:
    """InvalidInput for an archive whose members unfold to more than the file: PyTorch never compresses."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise InvalidInput(f"{path.name} is cut short or damaged: {error}") from error
    if packed or size > path.stat().st_size:
        raise InvalidInput(f"{path.name} is compressed, which PyTorch never does; save it again with torch.save")
    return True


def refusal(path: Path, reason: str) -> str:
    if "Unsupported operand" in reason:
        return f"{path.name} is a pickle that PyTorch did not write, which is not loaded; {SAVE_TENSORS}"
    unsafe = re.search(r"(?:Unsupported (?:global|class)|GLOBAL) (\S+)", reason)
    if unsafe is not None:
        what = unsafe.group(1).rstrip(":.")
        return f"{path.name} holds more than tensors ({what}), which is not loaded; {SAVE_TENSORS}"
    if "TorchScript" in reason:
        return f"{path.name} is a TorchScript archive, which holds code; {SAVE_TENSORS}"
    first = " ".join(reason.split("\n", 1)[0].split())[:200]
    return f"{path.name} cannot be read as a PyTorch state dict, it may be cut short or damaged: {first}"


def check_sizes(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """A tensor may repeat the same bytes over and over, and then unfold to any size."""
    size = path.stat().st_size
    total = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta:
            raise InvalidInput(f"{path.name}: tensor '{name}' is sparse, quantised or empty, expected plain numbers")
        held = math.prod(tensor.shape) * tensor.element_size()
        total += held
        if held > size or total > UNFOLDED * size:
            raise InvalidInput(f"{path.name}: tensor '{name}' has shape {list(tensor.shape)}, more than the file holds")


def apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous, and each with memory of its own: safetensors takes no tied weights."""
    found: dict[str, torch.Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().contiguous()
        place = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if place in taken else plain
        taken.add(place)
    return found
