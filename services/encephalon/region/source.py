"""Where the network of a region comes from: what a client or a manifest asks for, and the weights behind it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from encephalon.core.errors import Corrupt, Denied, FailedPrecondition, InvalidInput, NotFound
from encephalon.core.inference.models import LoadParameter
from encephalon.library.store import object_key
from encephalon.state import Objects, read

__all__ = ["Config", "Source"]

OBJECT = re.compile(r"object:sha256:([0-9a-f]{64})")
FILE = re.compile(r"file:(?:([A-Za-z0-9._-]{1,64})/)?model\.(?:safetensors|onnx)")
NETWORK = re.compile(r"[a-z][a-z0-9_]*/[0-9]{3}")
KEYS = {"network": str, "weights": str, "version": (str, int), "arguments": dict}


@dataclass(frozen=True, slots=True)
class Config:
    """One network with its weights. `weights` is None for those that ship with the package, a name, or the bytes."""

    network: str
    weights: str | bytes | None = None
    arguments: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    version: str = ""
    """Empty: the next number."""
    trusted: bool = field(default=False, compare=False)
    """The name of the weights came from this machine's manifest, so it may be any file."""

    @property
    def area(self) -> str:
        return self.network.partition("/")[0]

    @property
    def code(self) -> str:
        return self.network.partition("/")[2]

    def changed(self, parameters: Mapping[str, LoadParameter]) -> Config:
        """What RepositoryModelLoad's parameters ask for; what they leave out stays, except weights of another network.

        Raises `InvalidInput` for parameters that cannot be.
        """
        config = read_config(parameters.get("config"))
        weights, version = read_file(parameters)
        for name in parameters:
            if name != "config" and not FILE.fullmatch(name):
                raise InvalidInput(
                    f"unknown parameter '{name[:100]}'; expected config and file:<version>/model.safetensors "
                    "or model.onnx"
                )
        network = config.get("network", self.network)
        kept = self.weights if network == self.network and "arguments" not in config else None
        arguments = config.get("arguments", self.arguments if network == self.network else {})
        named = config.get("weights")
        return Config(
            network=network,
            weights=weights if weights is not None else named if named is not None else kept,
            arguments=MappingProxyType(dict(arguments)),
            version=str(config.get("version", version)),
            trusted=self.trusted and weights is None and named is None,
        )


def read_config(value: LoadParameter | None) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        config = json.loads(value) if isinstance(value, (str, bytes)) else value
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"parameter 'config' is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise InvalidInput('parameter \'config\' is no JSON object; expected one such as {"network": "vision/002"}')
    for key, item in config.items():
        if key not in KEYS:
            raise InvalidInput(f"parameter 'config' has an unknown key '{key[:100]}'; expected {', '.join(KEYS)}")
        if not isinstance(item, KEYS[key]) or isinstance(item, bool):  # type: ignore[arg-type]
            raise InvalidInput(f"'{key}' in parameter 'config' is {str(item)[:100]!r}, which is of the wrong kind")
    check_names(config)
    return config


def check_names(config: Mapping[str, Any]) -> None:
    network, version = config.get("network"), config.get("version")
    if network is not None and not NETWORK.fullmatch(network):
        raise InvalidInput(f"'network' in parameter 'config' is '{network[:100]}', expected one such as vision/002")
    if version is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", str(version)):
        raise InvalidInput(f"'version' in parameter 'config' is '{str(version)[:100]}', expected one such as 2")


def read_file(parameters: Mapping[str, LoadParameter]) -> tuple[bytes | None, str]:
    files = {name: match for name in parameters if (match := FILE.fullmatch(name))}
    if not files:
        return None, ""
    if len(files) > 1:
        raise InvalidInput(f"{len(files)} weight files came; send one")
    name, match = next(iter(files.items()))
    data = parameters[name]
    if not isinstance(data, bytes):
        raise InvalidInput(f"parameter '{name}' holds no bytes; send the weights file in it")
    return data, match.group(1) or ""


@dataclass(frozen=True, slots=True)
class Source:
    """Finds weights by name: `object:sha256:HEX` among `objects`, files below `folder` (and nowhere else)."""

    objects: Objects | None = None
    folder: Path | None = None

    async def weights(self, config: Config) -> Path | bytes | None:
        """Raises `NotFound`, `Denied` for a file elsewhere, `Corrupt` for an object that does not match its name."""
        if not isinstance(config.weights, str):
            return config.weights
        if config.weights.startswith("object:"):
            return await self._object(config.weights)
        if config.trusted:
            return existing(Path(config.weights), config.weights)
        return self._file(config.weights)

    def _file(self, name: str) -> Path:
        if self.folder is None:
            raise Denied("this region reads no weight files; set its weights folder, or send the weights' bytes")
        try:
            path = (self.folder / name).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise InvalidInput(f"weights '{name[:100]}' is no file name") from error
        if not path.is_relative_to(self.folder.resolve()):
            raise Denied(f"weights '{name[:100]}' lies outside of the region's weights folder")
        return existing(path, name)

    async def _object(self, name: str) -> bytes:
        match = OBJECT.fullmatch(name)
        if match is None:
            raise InvalidInput(f"weights '{name[:100]}' name no object; expected object:sha256: and 64 hex digits")
        if self.objects is None:
            raise FailedPrecondition("this region has no object store; set one, or send the weights' bytes")
        return await fetch(self.objects, match.group(1))


def existing(path: Path, name: str) -> Path:
    if not path.is_file():
        raise NotFound(f"there is no weight file '{name[:200]}'", weights=name[:200])
    return path


async def fetch(objects: Objects, digest: str) -> bytes:
    data = await read(objects, object_key(digest))
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise Corrupt(f"object sha256:{digest} has the digest {found}; store it again", expected=digest, got=found)
    return data
