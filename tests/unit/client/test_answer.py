from __future__ import annotations

import numpy as np

from encephalon.client import Answer
from encephalon.core.wire import InferResponse, Tensor

RESPONSE = InferResponse(
    "digits",
    parameters={
        "missing_regions": "auditory,smell",
        "region_ms.visual": 1.5,
        "queue_ms.visual": 0.5,
        "version.visual": "3",
        "sequence_id": 7,
    },
    outputs=[Tensor.of("probabilities", np.ones((1, 10), np.float32))],
)


def test_an_answer_is_a_mapping_of_outputs_with_its_history() -> None:
    answer = Answer.of(RESPONSE, single=False)
    assert list(answer) == ["probabilities"]
    assert answer["probabilities"].shape == (1, 10)
    assert answer.missing == ("auditory", "smell")
    assert answer.timings == {"visual": 1.5}
    assert answer.queues == {"visual": 0.5}
    assert answer.versions == {"visual": "3"}


def test_one_row_comes_back_without_a_batch_dimension() -> None:
    assert Answer.of(RESPONSE, single=True)["probabilities"].shape == (10,)


def test_nothing_missing_is_empty() -> None:
    assert Answer.of(InferResponse("digits", parameters={"missing_regions": ""}), single=False).missing == ()
