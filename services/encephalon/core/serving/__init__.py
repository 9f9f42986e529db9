"""The life of a gRPC server: bind, answer, say truthfully how it is, drain. Knows nothing of what its services do."""

from encephalon.core.serving.addresses import host_port
from encephalon.core.serving.health import Health
from encephalon.core.serving.process import run_service
from encephalon.core.serving.server import Limits, Server, serving
from encephalon.core.serving.signals import until_signal

__all__ = ["Health", "Limits", "Server", "host_port", "run_service", "serving", "until_signal"]
