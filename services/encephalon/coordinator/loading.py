"""What a brain is loaded from: the manifest in a request, and what servers say of their models."""

from __future__ import annotations

from collections.abc import Mapping

from encephalon.core.contract import Contract
from encephalon.core.errors import EncephalonError, InvalidInput, InvalidManifest
from encephalon.core.inference import InferenceClient, LoadParameter
from encephalon.library.brains import Brain, Region, parse_manifest

__all__ = ["contract_of", "manifest_of", "same_servers"]

CONTRACT_S = 5.0


def manifest_of(name: str, parameters: Mapping[str, LoadParameter]) -> Brain | None:
    """The brain in the parameter `config` (YAML or JSON); None when there is none.

    InvalidInput for another parameter; InvalidManifest when it cannot run or is of another brain than `name`.
    """
    for key in parameters:
        if key != "config":
            raise InvalidInput(f"unknown parameter '{key}'; a brain is loaded by 'config', its manifest", parameter=key)
    config = parameters.get("config")
    if config is None:
        return None
    if isinstance(config, bytes):
        config = config.decode("utf-8", "replace")
    if not isinstance(config, str):
        raise InvalidInput("parameter 'config' must be text: the manifest as YAML or JSON", parameter="config")
    brain = parse_manifest(config, name)
    if brain.name != name:
        raise InvalidManifest(f"the manifest is of brain '{brain.name}', but is to be loaded as '{name}'", brain=name)
    return brain


async def contract_of(region: Region) -> Contract:
    """What the server at the region's address says of its model."""
    try:
        async with InferenceClient(region.address) as client:
            return (await client.describe(region.model, timeout_s=CONTRACT_S)).contract
    except EncephalonError as error:
        named = type(error)(f"region '{region.name}': the server at {region.address} says: {error.message}")
        named.details.update(error.details, region=region.name)
        raise named from None


def same_servers(one: Region, other: Region) -> bool:
    """Whether the same replicas serve both."""
    return (one.network, one.address, one.model, one.weights, dict(one.arguments)) == (
        other.network, other.address, other.model, other.weights, dict(other.arguments),
    )  # fmt: skip
