"""Generates services/encephalon/api from protos/; with --check compares instead and names the files that differ."""

from __future__ import annotations

import filecmp
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
API = PROTOS.parent / "services" / "encephalon" / "api"
DOOR = '"""Generated from protos/ by `poe protos`. Never edited."""\n'


def generate(destination: Path) -> None:
    """Writes the messages (`_pb2.py`), their types (`_pb2.pyi`) and a docstring per package below `destination`."""
    well_known = str(resources.files("grpc_tools") / "_proto")
    sources = sorted(str(path) for path in PROTOS.rglob("*.proto"))
    arguments = [f"-I{PROTOS}", f"-I{well_known}", f"--python_out={destination}", f"--mypy_out=quiet:{destination}"]
    if protoc.main(["protoc", *arguments, *sources]) != 0:
        raise SystemExit("protoc refused the protos; its message stands above")
    root = destination / "encephalon" / "api"
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text(DOOR)


def differences(new: Path, old: Path) -> list[str]:
    """Files below either folder that are missing in the other or not byte-equal."""

    def names(root: Path) -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*.py*") if "__pycache__" not in path.parts}

    both = names(new) | names(old)
    return sorted(
        name
        for name in both
        if not (new / name).exists()
        or not (old / name).exists()
        or not filecmp.cmp(new / name, old / name, shallow=False)
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = Path(folder) / "encephalon" / "api"
        if "--check" in sys.argv[1:]:
            if changed := differences(fresh, API):
                raise SystemExit(
                    f"services/encephalon/api differs from protos/ in {', '.join(changed)}; run `poe protos`"
                )
            return
        for name in differences(fresh, API):
            target = API / name
            if (fresh / name).exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((fresh / name).read_bytes())
            else:
                target.unlink()


if __name__ == "__main__":
    main()
