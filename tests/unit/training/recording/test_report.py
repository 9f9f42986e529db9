"""A run in rows and figures, and that clients can have them without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from encephalon.api.parameter_server.v1.parameter_server_pb2 import Checkpoint, Piece
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.recording import History
from encephalon.training.recording.figures import judgements, kept, quality, totals
from encephalon.training.recording.report import report
from tests.unit.training.planning.cluster import settings
from tests.unit.training.recording.histories import evaluation, history


def state(**fields: object) -> pb.RunState:
    found = pb.RunState(run="r", state=pb.RunState.STATE_SUCCEEDED, samples=1200, seconds=6.0, bytes=77)
    found.checkpoint.CopyFrom(Checkpoint(version=20, pieces=[Piece(key="last")]))
    found.evaluations.extend([evaluation(10, 0.6), evaluation(20, 0.5)])
    found.MergeFrom(pb.RunState(**fields))
    return found


def best() -> pb.RunState:
    return state(best=Checkpoint(version=10, pieces=[Piece(key="best")]), test=evaluation(10, 0.55, "test"))


PATIENT = settings(patience=2)


def test_what_is_kept_is_the_last_or_with_patience_the_best_and_judged_as_such() -> None:
    assert kept(settings(), best()).version == kept(PATIENT, state()).version == 20
    assert kept(PATIENT, best()).version == 10
    assert [each.loss for each in judgements(settings(), state())] == [0.5]
    assert [each.purpose for each in judgements(PATIENT, best())] == ["validation", "test"]
    # A judgement of other parameters says nothing of those that are kept.
    assert [each.purpose for each in judgements(settings(), best())] == ["validation"]
    late = state(best=best().best, best_evaluation=evaluation(10, 0.61))
    del late.evaluations[:]
    assert [each.accuracy["digit"] for each in judgements(PATIENT, late)] == [0.61]


def test_figures_of_a_run() -> None:
    found = totals(PATIENT, best(), history(20))
    assert found == {
        "accuracy.validation": pytest.approx(0.6),
        "loss.validation": pytest.approx(0.4),
        "accuracy.test": pytest.approx(0.55),
        "loss.test": pytest.approx(0.45),
        "loss": pytest.approx(0.45),
        "steps": 20,
        "samples": 1200,
        "seconds": 6.0,
        "bytes": 77,
        "workers": 2,
        "samples_per_second": 200.0,
    }
    assert totals(settings(), pb.RunState(), History())["steps"] == 0


def test_of_several_outputs_the_main_one_is_that_whose_loss_weighs_most() -> None:
    found = pb.Evaluation(purpose="test", loss=1.0, accuracy={"a": 0.1, "b": 0.2})
    both = settings(targets={"a": 0.5, "b": 2.0})
    assert quality(both, [found]) == {
        "accuracy.test": 0.2,
        "accuracy.test.a": 0.1,
        "accuracy.test.b": 0.2,
        "loss.test": 1.0,
    }
    assert quality(both, [found], ["a"]) == {"accuracy.test": 0.1}
    assert quality(both, [found], []) == {}


def test_rows_for_people() -> None:
    found = report(PATIENT, best(), history(20))
    assert [(row.purpose, row.step, row.kept) for row in found.judged] == [
        ("validation", 10, True),
        ("validation", 20, False),
        ("test", 10, True),
    ]
    assert found.state == "succeeded"
    assert found.skipped == 1
    row = found.workers[0]
    assert (row.worker, row.samples, row.part, row.first_share, row.last_share) == ("worker-0", 600, 0.5, 0.5, 0.5)
    assert (row.samples_per_second, row.slowness) == (pytest.approx(600.0), 1.0)
    nothing = report(settings(), pb.RunState(), History())
    assert (nothing.judged, nothing.workers) == ([], [])


def test_what_clients_need_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, encephalon.training.recording.report, encephalon.training.planning; "
        "print(sorted({'torch', 'matplotlib', 'tensorboard', 'safetensors'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert found.stdout.strip() == "[]"
