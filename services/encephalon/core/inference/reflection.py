"""What reflection shows of the protocol: our messages under the package name that its clients know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from encephalon.api.inference.v1 import inference_pb2, model_config_pb2
from encephalon.core.inference.names import SERVICE

__all__ = ["descriptors"]

OURS, THEIRS = "encephalon.api.inference.v1", "inference"


def descriptors() -> tuple[DescriptorPool, tuple[str, ...]]:
    """A private pool, which another copy of package `inference` in this process does not meet, and its services."""
    pool = DescriptorPool()
    for module in (model_config_pb2, inference_pb2):
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        pool.Add(renamed(file))
    return pool, (SERVICE,)


def renamed(file: FileDescriptorProto) -> FileDescriptorProto:
    """The package stands in the package statement and in every reference to a message."""
    changed = FileDescriptorProto.FromString(file.SerializeToString())
    changed.package = THEIRS
    for message in walk(changed.message_type):
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{OURS}.", f".{THEIRS}.")
    for service in changed.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{OURS}.", f".{THEIRS}.")
            method.output_type = method.output_type.replace(f".{OURS}.", f".{THEIRS}.")
    return changed


def walk(messages: Iterable[DescriptorProto]) -> Iterator[DescriptorProto]:
    for message in messages:
        yield message
        yield from walk(message.nested_type)
