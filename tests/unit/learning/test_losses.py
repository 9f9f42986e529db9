from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as nnf

from encephalon.core.errors import InvalidInput
from encephalon.learning.losses import losses
from tests.unit.learning.brains import settings_of

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0], [1.0, 1.0, 4.0]])
LABELS = torch.tensor([0, 1, 0])


def lost(outputs: dict[str, torch.Tensor], labels: torch.Tensor = LABELS, **more: Any) -> tuple[float, dict[str, int]]:
    total, correct = losses(outputs, labels, settings_of(**more))
    assert total.shape == ()
    return float(total), correct


def test_logits_are_preferred_to_probabilities() -> None:
    probabilities = LOGITS.softmax(dim=1)
    expected = float(nnf.cross_entropy(LOGITS, LABELS, reduction="sum"))
    assert lost({"p": probabilities, "p.logits": LOGITS})[0] == pytest.approx(expected, abs=1e-6)
    assert lost({"p": probabilities})[0] == pytest.approx(expected, rel=1e-5)


def test_a_probability_of_zero_costs_much_but_not_infinitely_much() -> None:
    assert lost({"p": torch.tensor([[0.0, 1.0]])}, torch.tensor([0]))[0] == pytest.approx(-math.log(1e-7), rel=1e-3)


def test_targets_are_weighted_and_rows_that_are_not_there_left_out() -> None:
    outputs = {"a.logits": LOGITS, "a": LOGITS, "b": LOGITS, "b.logits": LOGITS}
    one, correct = lost(outputs)
    assert correct == {"a": 2, "b": 2}
    assert lost(outputs, targets={"a": 1.0, "b": 0.5})[0] == pytest.approx(1.5 * one)
    some = {**outputs, "b.present": torch.tensor([False, True, False])}
    found, correct = lost(some, targets={"b": 1.0})
    assert found == pytest.approx(float(nnf.cross_entropy(LOGITS[1:2], LABELS[1:2])))
    assert correct == {"a": 2, "b": 1}


def test_what_is_not_a_number_is_never_right() -> None:
    broken = LOGITS.clone()
    broken[0] = math.nan  # argmax would say 0, which it should be
    assert lost({"a": broken, "a.logits": broken})[1] == {"a": 1}


def test_a_batch_of_which_no_row_has_a_target_costs_nothing() -> None:
    total, correct = lost({"a": LOGITS, "a.logits": LOGITS}, targets={"b": 1.0})
    assert (total, correct) == (0.0, {"a": 2})
    assert lost({}) == (0.0, {})


def test_squares_are_means_over_the_numbers_of_a_sample() -> None:
    outputs = {"y": torch.tensor([[1.0, 2.0], [0.0, 0.0]])}
    assert lost(outputs, torch.tensor([[1.0, 0.0], [3.0, 1.0]]), loss="mse") == (2.0 + 5.0, {})
    assert lost({"y": torch.tensor([[1.0], [2.0]])}, torch.tensor([0.0, 2.0]), loss="mse")[0] == 1.0
    with pytest.raises(InvalidInput, match=r"output 'y' has shape \[2, 2\], and what it should be \[2\]"):
        lost(outputs, torch.tensor([1.0, 2.0]), loss="mse")


def test_a_label_beyond_the_columns_is_explained() -> None:
    with pytest.raises(InvalidInput, match=r"output 'a' has shape \[3, 3\], which does not fit label 7"):
        lost({"a": LOGITS}, torch.tensor([0, 7, 1]))


def test_what_is_not_finite_is_told_as_it_is() -> None:
    assert math.isnan(lost({"a": LOGITS, "a.logits": LOGITS * math.nan})[0])
