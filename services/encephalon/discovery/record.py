"""The key and the value of one instance, and their check: what comes from the store may have been written by
anybody.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

import structlog
from google.protobuf.message import DecodeError

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.core.errors import InvalidInput
from encephalon.state import Entry, KeyValue

__all__ = ["instance_of", "key_of", "prefix_of", "resolve", "value_of"]

_log = structlog.get_logger(__name__)

MAX_RECORD_BYTES: Final = 16 * 1024
MAX_NAME_BYTES: Final = 200


def prefix_of(namespace: str, brain: str, region: str | None = None) -> str:
    """What the keys of a brain's instances start with. Raises InvalidInput for an empty or over-long name."""
    names = [_segment("namespace", namespace), "instances", _segment("brain", brain)]
    if region is not None:
        names.append(_segment("region", region))
    return "/encephalon/" + "/".join(names) + "/"


def key_of(namespace: str, instance: Instance) -> str:
    return prefix_of(namespace, instance.brain, instance.region) + _segment("id", instance.id)


def value_of(instance: Instance) -> bytes:
    """Raises InvalidInput when the instance is not one that others could use."""
    check(instance)
    return instance.SerializeToString(deterministic=True)


def instance_of(entry: Entry) -> Instance | None:
    """The instance of an entry; None, and a line in the log, when the record is damaged."""
    try:
        if len(entry.value) > MAX_RECORD_BYTES:
            raise InvalidInput(f"the record has {len(entry.value)} bytes, at most {MAX_RECORD_BYTES} are allowed")
        instance = Instance.FromString(entry.value)
        check(instance)
        brain, region, identity = entry.key.split("/")[-3:]
        if [unquote(brain), unquote(region), unquote(identity)] != [instance.brain, instance.region, instance.id]:
            raise InvalidInput("the record belongs to another key")
    except (DecodeError, InvalidInput, ValueError) as error:
        _log.warning("a damaged discovery record is skipped", key=entry.key, cause=str(error))
        return None
    return instance


def check(instance: Instance) -> None:
    """Raises InvalidInput with the field that is wrong."""
    for field in ("brain", "region", "id"):
        _segment(field, getattr(instance, field))
    host, colon, port = instance.address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidInput(f"the address {instance.address!r} is not host:port", field="address")
    if instance.local_address and not instance.local_address.startswith("unix:/"):
        raise InvalidInput(f"the local address {instance.local_address!r} is not unix:/PATH", field="local_address")
    if instance.state not in (Instance.STATE_STARTING, Instance.STATE_READY, Instance.STATE_DRAINING):
        raise InvalidInput(f"the state {instance.state} is none that an instance can be in", field="state")
    if not 0 <= instance.load <= 1:
        raise InvalidInput(f"the load {instance.load} is not between 0 and 1", field="load")


async def resolve(store: KeyValue, namespace: str, brain: str, region: str | None = None) -> list[Instance]:
    """The instances announced now, of one region or of all, in the order of their keys. Raises Unavailable,
    InvalidInput.
    """
    found = [instance_of(entry) async for entry in store.list(prefix_of(namespace, brain, region))]
    return [instance for instance in found if instance is not None]


def _segment(what: str, name: str) -> str:
    if not name or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise InvalidInput(f"the {what} {name[:40]!r} must have 1 to {MAX_NAME_BYTES} bytes", field=what)
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise InvalidInput(f"the {what} {name!r} is not valid Unicode", field=what) from None
