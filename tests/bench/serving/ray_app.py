"""Runs in Ray's environment: deployments behind Serve's gRPC proxy, composed by handles.

Arguments: the gRPC port, the port of the HTTP proxy that Serve starts beside it, and a folder for Ray's session. The
method takes and gives google.protobuf.BytesValue, a generic message of raw bytes: the inputs one behind the other.
"""

import signal
import sys
import threading

import grpc
import numpy as np
import ray
from google.protobuf.wrappers_pb2 import BytesValue
from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions
from ray.serve.schema import LoggingConfig

MOST_AT_ONCE = 256  # Serve's own default of five would queue the callers


def add_pair_to_server(servicer, server):
    """What protoc would generate for `service Pair { rpc Infer(BytesValue) returns (BytesValue); }`."""
    infer = grpc.unary_unary_rpc_method_handler(servicer.Infer, BytesValue.FromString, BytesValue.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Pair", {"Infer": infer}),))


QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")
deployment = serve.deployment(
    max_ongoing_requests=MOST_AT_ONCE, ray_actor_options={"num_cpus": 0}, logging_config=QUIET
)


@deployment
class Identity:
    async def __call__(self, x):
        return x


@deployment
class Join:
    async def __call__(self, a, b):
        return a + b


@deployment
class Pair:
    def __init__(self, left, right, join):
        self.left, self.right, self.join = left, right, join

    async def Infer(self, request):
        left, right = np.frombuffer(request.value, np.float32).reshape(2, -1)
        seen, heard = self.left.remote(left), self.right.remote(right)
        total = await self.join.remote(seen, heard)  # a handle waits for responses that it is given
        return BytesValue(value=total.tobytes())


def main(port, http_port, folder):
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
        object_store_memory=1 << 30,
    )
    serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=http_port),
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=["ray_app.add_pair_to_server"]),
        logging_config=QUIET,
    )
    identity = {"left": Identity.options(name="left").bind(), "right": Identity.options(name="right").bind()}
    serve.run(Pair.bind(**identity, join=Join.bind()), name="pair", route_prefix="/pair")


if __name__ == "__main__":
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    ended.wait()
    serve.shutdown()
    ray.shutdown()
