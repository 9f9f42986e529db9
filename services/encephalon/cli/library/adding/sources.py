"""What a source looks like: the kind of record that it becomes."""

from __future__ import annotations

import difflib
from pathlib import Path

from encephalon.core.errors import InvalidInput, NotFound
from encephalon.library.brains.document import MAX_BYTES, Document, read_document
from encephalon.library.records import kind_named
from encephalon.library.records.reference import check_name

__all__ = ["RECIPES", "document_of", "kind_of", "name_of"]

WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar", ".weights", ".onnx")
TABLES = (".csv", ".tsv", ".parquet")
DOCUMENTS = (".yaml", ".yml", ".json")
RECIPES = ("avmnist",)
ADDABLE = ("network", "data_set", "brain", "scene")


def kind_of(source: str, wanted: str | None) -> str:
    """ "network", "data_set", "brain" or "scene"; `wanted` overrules. NotFound when there is no such file, InvalidInput
    when it is like nothing that the library keeps.
    """
    if wanted is not None and (kind := kind_named(wanted)) not in ADDABLE:
        raise InvalidInput(f"a record of kind '{kind}' is not made from a file; {', '.join(ADDABLE)} are")
    path = Path(source)
    if source in RECIPES and not path.exists():
        return "data_set"
    if not path.exists():
        near = difflib.get_close_matches(source, [*RECIPES, *siblings(path)], n=1)
        raise NotFound(f"there is no file {source}; {f'did you mean {near[0]}?' if near else 'give one that is there'}")
    return kind_named(wanted) if wanted is not None else looked_at(path)


def looked_at(path: Path) -> str:
    ending = path.suffix.lower()
    if path.is_dir() or ending in TABLES:
        return "data_set"
    if ending in WEIGHTS:
        return "network"
    if ending in DOCUMENTS:
        value = document_of(path).value
        for kind in ("brain", "scene"):
            if isinstance(value, dict) and kind in value:
                return kind
        raise InvalidInput(f"{path} says neither `brain: NAME` nor `scene: NAME` at its top; write which it is")
    known = ", ".join([*WEIGHTS, *TABLES, *DOCUMENTS])
    raise InvalidInput(
        f"{path.name} is like nothing that the library keeps; it takes folders and {known} (--kind overrules)"
    )


def siblings(path: Path) -> list[str]:
    try:
        return [str(path.parent / item.name) for item in path.parent.iterdir()]
    except OSError:
        return []


def document_of(path: Path) -> Document:
    """A YAML or JSON file, read within bounds. InvalidManifest names the line."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8 text") from None
    return read_document(text, path.name)


def name_of(path: Path) -> str:
    """The name of a record that is given none: that of the file without its ending, or of the folder. InvalidInput when
    that cannot be one.
    """
    path = path.resolve()
    name = path.stem if path.is_file() else path.name
    try:
        return check_name(name)
    except InvalidInput:
        raise InvalidInput(f"'{name[:80]}' cannot be the name of a record; give another with --name") from None
