"""The columns behind the pictures."""

from __future__ import annotations

import numpy as np
import pytest

from encephalon.training.recording import History
from encephalon.training.recording.series import shares_of, smoothed, steps_of
from tests.unit.training.recording.histories import history, step


def test_throughput_goes_by_the_clock_of_the_run() -> None:
    found = steps_of(history(30))
    assert found.samples_per_second == pytest.approx(600.0)
    assert found.epochs == [(1, 0), (11, 1), (21, 2)]
    assert found.skipped.nonzero()[0].tolist() == [6]
    thinned = History()
    for version in range(1, 30, 2):  # half the updates of a long history are not there any more
        thinned.add(step(version))
    assert steps_of(thinned).samples_per_second == pytest.approx(600.0)


def test_smoothing_does_not_lag_and_leaves_out_what_is_no_number() -> None:
    line = np.arange(100.0)
    line[50] = np.nan
    assert smoothed(line)[10:90] == pytest.approx(np.arange(10.0, 90.0), abs=0.6)
    spiked = np.ones(100)
    spiked[30] = 1000
    assert smoothed(spiked, median=True).tolist() == [1.0] * 100
    assert np.isnan(smoothed(np.full(5, np.inf))).all()
    assert smoothed(np.array([])).shape == (0,)


def test_shares_are_parts_of_a_batch_by_worker() -> None:
    found = shares_of(history(30, workers=[f"worker-{number}" for number in range(12)]))
    assert found.workers[:3] == ["worker-0", "worker-1", "worker-2"]
    assert found.workers[-1] == "worker-11"
    assert found.part.shape == (12, 30)
    assert found.part.sum(axis=0) == pytest.approx(1.0)
    assert shares_of(history(1000), bins=100).part.shape == (2, 100)
    assert shares_of(History()).part.shape == (0, 0)


def test_updates_of_one_worker_each_are_taken_together() -> None:
    found = History()
    for version in range(1, 102):
        found.add(step(version, workers=["fast" if version % 4 else "slow"]))
    shares = shares_of(found)
    assert shares.workers == ["fast", "slow"]
    assert shares.part[0] == pytest.approx(0.75, abs=0.03)
    assert np.isfinite(shares.compute_seconds).all()
