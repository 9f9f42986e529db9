"""What is said of a run is said of the parameters that it leaves behind."""

from __future__ import annotations

import pytest

from encephalon.api.training.v1.training_pb2 import RunState
from encephalon.local.training.result import result_of
from encephalon.training.runs import RunSettings
from tests.unit.local.training.statuses import evaluation


@pytest.mark.parametrize(("patience", "epoch"), [(None, 2), (1, 1)])
def test_the_best_judgement_counts_only_where_the_best_parameters_are_kept(patience: int | None, epoch: int) -> None:
    settings = RunSettings(run="r", brain="brain:b@1", data="data_set:d@1", patience=patience)
    judgements = [evaluation(0), evaluation(1), evaluation(2)]
    judgements[2].loss = 7.0
    result = result_of(settings, RunState(run="r", state=RunState.STATE_SUCCEEDED, evaluations=judgements))
    assert result.loss == judgements[epoch].loss
    assert result.accuracy == judgements[epoch].accuracy["probabilities"]
