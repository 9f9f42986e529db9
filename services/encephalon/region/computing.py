"""A batch goes through the network, in the worker thread, and one bad message spoils no other; or one message does at
once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from encephalon.core.errors import Cancelled, EncephalonError, Internal, InvalidInput
from encephalon.core.wire import Tensor
from encephalon.region.batching import Inputs, checked_outputs, chosen, split, stack
from encephalon.region.version import Version

__all__ = ["Answer", "Message", "compute", "compute_batch", "compute_now"]

LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Message:
    """One request as the network's side sees it. It is computed by the version that was in service when it came."""

    version: Version
    inputs: Inputs
    rows: int
    wanted: Collection[str] | None
    """Names of outputs; None means all."""


@dataclass(slots=True)
class Answer:
    outputs: list[Tensor]
    batch_rows: int
    queue_s: float
    compute_ns: int
    """Of the network, for the whole batch."""


def compute_batch(
    region: str, messages: Sequence[Message], queued: Sequence[float], abandoned: threading.Event
) -> Sequence[Answer | BaseException]:
    """An answer or an error per message, `queued` seconds after it came. When a batch of several fails, each is tried
    alone.

    `abandoned` is set when nobody waits for any of the answers any more.
    """
    if abandoned.is_set():
        return [Cancelled("nobody waits for the answer any more")] * len(messages)
    try:
        return compute(messages, queued)
    except Exception as error:  # noqa: BLE001 - it goes to the senders
        if len(messages) == 1:
            return [explained(region, messages[0].version, error)]
    return [alone(region, message, wait, abandoned) for message, wait in zip(messages, queued, strict=True)]


def alone(region: str, message: Message, queued: float, abandoned: threading.Event) -> Answer | BaseException:
    if abandoned.is_set():
        return Cancelled("nobody waits for the answer any more")
    try:
        return compute([message], [queued])[0]
    except Exception as error:  # noqa: BLE001 - it goes to the sender
        return explained(region, message.version, error)


def compute(messages: Sequence[Message], queued: Sequence[float]) -> list[Answer]:
    version = messages[0].version
    contract = version.contract
    rows = [message.rows for message in messages]
    began = time.perf_counter_ns()
    inputs = stack(contract, [message.inputs for message in messages], rows)
    stacked = time.perf_counter_ns()
    outputs = version.network(inputs)
    computed = time.perf_counter_ns()
    parts = split(contract, outputs, rows, [message.wanted for message in messages])
    total = sum(rows)
    ns = computed - stacked
    version.computed(total, len(messages), (stacked - began, ns, time.perf_counter_ns() - computed))
    return [Answer(part, total, wait, ns) for part, wait in zip(parts, queued, strict=True)]


def compute_now(
    region: str, version: Version, tensors: Sequence[Tensor], rows: int, wanted: Collection[str] | None
) -> Answer:
    """A message alone, where it is: for networks that cost less than a batch does. Raises what the sender is told."""
    try:
        began = time.perf_counter_ns()
        outputs = version.network({tensor.name: tensor.array for tensor in tensors})
        computed = time.perf_counter_ns()
        answers = checked_outputs(version.contract, outputs, rows)
    except Exception as error:
        raise explained(region, version, error) from error
    version.computed(rows, 1, (0, computed - began, time.perf_counter_ns() - computed))
    return Answer(chosen(answers, wanted), rows, 0.0, computed - began)


def explained(region: str, version: Version, error: Exception) -> EncephalonError:
    """What the sender is told: its own mistake as it is, anything else as a failure of the region."""
    if isinstance(error, InvalidInput):
        return error
    LOG.error("a network failed", extra={"network": version.config.network, "version": version.name}, exc_info=error)
    cause = error.message if isinstance(error, EncephalonError) else f"{type(error).__name__}: {error}"
    return Internal(
        f"region '{region}' failed: {version.config.network} version {version.name}: {cause}",
        region=region,
        network=version.config.network,
        version=version.name,
    )
