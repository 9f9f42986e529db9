"""`grpc.reflection`: what services there are, for tools such as grpcurl. Answers from a pool of its own.

A pool of its own, because another copy of package `inference` may live in the process's pool.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from encephalon.core.inference.reflection import descriptors
from encephalon.core.serving.health import NAME as HEALTH

__all__ = ["reflection_handlers"]

VERSIONS = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
"""The same messages under two names; older tools know the first, newer ones ask for the second."""


def reflection_handlers(services: Iterable[str]) -> list[grpc.GenericRpcHandler]:
    """Shows `services`, health and reflection itself."""
    names = (*services, HEALTH, VERSIONS[0])
    servicer = reflection.aio.ReflectionServicer(names, pool_of(names))
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in VERSIONS]


def pool_of(services: Iterable[str]) -> DescriptorPool:
    """The inference protocol under its public name, and copies of the files of all other services."""
    pool, known = descriptors()
    added: set[str] = set()
    for service in services:
        if service not in known:
            try:
                file = descriptor_pool.Default().FindServiceByName(service).file
            except KeyError:  # a service without a descriptor is listed and cannot be described
                continue
            copy(file, pool, added)
    return pool


def copy(file: Any, pool: DescriptorPool, added: set[str]) -> None:
    if file.name in added:
        return
    added.add(file.name)
    for needed in file.dependencies:
        copy(needed, pool, added)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    pool.Add(proto)
