"""The manifest with what its reader decided: where each region lives, how many there are, where their weights are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encephalon.core.errors import InvalidInput
from encephalon.library import builtins
from encephalon.library.brains import Brain, Region, parse_manifest
from encephalon.local.options import Options

__all__ = ["decided", "weights_file"]


def decided(brain: Brain, options: Options, folder: Path) -> Brain:
    """The brain with its options written in. Relative weight files lie beside the manifest, in `folder`.

    InvalidInput when the options do not fit the brain.
    """
    check_replicas(brain, options.replicas)
    changes: dict[str, dict[str, Any]] = {}
    for region in brain.regions:
        if region.address:
            continue
        changes[region.name] = {
            "placement": options.placement or region.placement or "distributed",
            "replicas": options.replicas.get(region.name, region.replicas),
        }
        if region.weights and region.weights.startswith("library:"):
            raise InvalidInput(
                f"the weights of region '{region.name}' are in the library; add the brain to it, and run it from there",
                region=region.name,
            )
        if region.weights and not region.weights.startswith("object:"):
            changes[region.name]["weights"] = str((folder / region.weights).resolve())
    return changed(brain, changes)


def changed(brain: Brain, changes: Mapping[str, Mapping[str, Any]]) -> Brain:
    """The brain with keys of its regions replaced."""
    manifest = json.loads(brain.to_json())
    for name, keys in changes.items():
        manifest["regions"][name].update(keys)
    return parse_manifest(json.dumps(manifest, indent=2, ensure_ascii=False), brain.document.origin)


def weights_file(region: Region) -> Path | None:
    """The file of a region's weights: the manifest's, else the packaged ones; None for a network that has none."""
    if region.weights:
        return Path(region.weights)
    packaged = builtins.WEIGHTS / f"{region.network.replace('/', '-')}.safetensors"
    return packaged if packaged.is_file() else None


def check_replicas(brain: Brain, replicas: Mapping[str, int]) -> None:
    regions = {region.name: region for region in brain.regions}
    for name, count in replicas.items():
        if name not in regions:
            raise InvalidInput(
                f"brain '{brain.name}' has no region '{name}'; its regions are {', '.join(regions)}", region=name
            )
        if regions[name].address:
            raise InvalidInput(f"region '{name}' runs elsewhere; its replicas are not started here", region=name)
        if not 1 <= count <= 1000:
            raise InvalidInput(f"region '{name}' cannot have {count} replicas; give 1 to 1000", region=name)
