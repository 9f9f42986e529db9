"""What the caller is told when a request cannot be answered: which region it is about, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from encephalon.coordinator.plan import Step
from encephalon.core.errors import DeadlineExceeded, EncephalonError, InvalidInput
from encephalon.library.brains import Brain

__all__ = ["expired", "lacking", "late", "naming", "nothing"]


def naming(region: str, error: EncephalonError) -> EncephalonError:
    """The same error, saying which region it is about."""
    if f"'{region}'" in error.message:
        return error
    named = type(error)(f"region '{region}': {error.message}")
    named.details.update(error.details, region=region)
    return named


def late(step: Step, timeout_s: float) -> DeadlineExceeded:
    """Receivers of the step wait no longer."""
    return DeadlineExceeded(
        f"region '{step.region}' did not answer within {timeout_s * 1000:g} ms", region=step.region, timeout_s=timeout_s
    )


def expired(running: Sequence[Step]) -> DeadlineExceeded:
    """The whole request is too late; these steps still run."""
    names = ", ".join(f"'{step.region}'" for step in running)
    return DeadlineExceeded(
        f"the time of the request is used up; still running: region {names}",
        region=",".join(step.region for step in running),
    )


def lacking(step: Step, receiver: Step) -> InvalidInput:
    """The receiver cannot run without the step, which was not asked."""
    return InvalidInput(
        f"region '{receiver.region}' needs region '{step.region}', for which no input was sent", region=step.region
    )


def nothing(brain: Brain) -> InvalidInput:
    """No output of the brain can be had from what came."""
    names = ", ".join(spec.name for spec in brain.inputs)
    return InvalidInput(f"no output can be computed from what was sent; the brain '{brain.name}' takes {names}")
