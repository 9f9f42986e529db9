"""The name of what a region runs, made from everything that decides what it answers: what has the same name answers the
same.
"""

from __future__ import annotations

import hashlib
import json

from encephalon.library.brains.brain import Region

__all__ = ["identity_of"]

DIGITS = 12
"""Of the digest: enough that no two networks of one region ever meet."""


def identity_of(region: Region) -> str:
    """For example "vision-002-1a2b3c4d5e6f"; empty for a region that runs elsewhere.

    Counts beside network, weights and arguments what bounds a message (batch, delay, mailbox), so that a region that is
    given other bounds is another one too.
    """
    if not region.network:
        return ""
    counts = [
        region.network,
        region.weights,
        dict(region.arguments),
        [region.max_batch, region.max_delay_s, region.mailbox],
    ]
    text = json.dumps(counts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"{region.network.replace('/', '-')}-{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"
