"""A real Triton serves a region of our brain: found by its address, checked by its metadata, asked, and lost."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from encephalon.core.errors import Unavailable
from tests.bench.serving.triton import Triton
from tests.running import running_brain

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # installs Triton the first time

BRAIN = """
brain: mixed
inputs:
  left: {{datatype: FP32, shape: [-1, -1]}}
  right: {{datatype: FP32, shape: [-1, -1]}}
regions:
  theirs: {{address: "{address}", model: left_identity}}
  ours: {{network: diagnostics/001}}
  join: {{network: diagnostics/002}}
pathways:
  - {{from: left, to: theirs.x}}
  - {{from: right, to: ours.x}}
  - {{from: theirs.y, to: join.a}}
  - {{from: ours.y, to: join.b}}
outputs:
  sum: join.y
"""
X = np.arange(6, dtype=np.float32).reshape(2, 3)


async def test_triton_is_a_region() -> None:
    triton = Triton()
    await asyncio.to_thread(triton.prepare)
    serving = triton.running()
    endpoint = await asyncio.to_thread(serving.__enter__)
    stopped = False
    try:
        async with running_brain(BRAIN.format(address=endpoint.address)) as brain, brain.connect() as brains:
            answers = await asyncio.gather(*(brains.infer("mixed", left=X, right=X * n) for n in range(50)))
            for n, answer in enumerate(answers):
                np.testing.assert_array_equal(answer["sum"], X * (n + 1))
            await asyncio.to_thread(serving.__exit__, None, None, None)
            stopped = True
            with pytest.raises(Unavailable, match="theirs"):
                await brains.infer("mixed", left=X, right=X, timeout=5)
    finally:
        if not stopped:
            await asyncio.to_thread(serving.__exit__, None, None, None)
