"""Chooses a replica: the better of two random ones, so that all coordinators do not run to the same."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from encephalon.coordinator.replicas import Replica

__all__ = ["choose"]

# What loses is slowly forgiven, so that a replica that was slow once is tried again after some hundred requests.
FORGIVEN = 0.99


def choose(replicas: Sequence[Replica], avoid: Collection[Replica] = ()) -> Replica | None:
    """Power of two choices (Mitzenmacher 2001) on work times latency; from `avoid` only when nothing else is left."""
    if avoid:
        replicas = [replica for replica in replicas if replica not in avoid] or replicas
    count = len(replicas)
    if count < 2:
        return replicas[0] if count else None
    first = int(random.random() * count)  # noqa: S311 - balances load, keeps no secret
    second = int(random.random() * (count - 1))  # noqa: S311
    one, other = replicas[first], replicas[second if second < first else second + 1]
    winner, loser = (one, other) if better(one, other) else (other, one)
    loser.latency_s *= FORGIVEN
    return winner


def better(one: Replica, other: Replica) -> bool:
    """By the expected seconds until it would answer one more; by work in hand alone while a latency is unknown."""
    if one.latency_s and other.latency_s:
        return (one.outstanding + 1) * one.latency_s <= (other.outstanding + 1) * other.latency_s
    return one.outstanding <= other.outstanding
