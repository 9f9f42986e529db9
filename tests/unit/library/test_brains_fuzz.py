"""Whatever is written into a manifest, the answer is a brain or one sentence."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encephalon.core.errors import InvalidManifest
from encephalon.library.brains import parse_manifest
from tests.unit.library.test_brains import DIGITS

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = ("brain", "description", "inputs", "regions", "pathways", "outputs")


def survives(text: str) -> None:
    said = ""
    try:
        parse_manifest(text, "any.yaml")
    except InvalidManifest as error:
        said = error.message
    assert not said or said.startswith("any.yaml")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    survives(text)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(DIGITS)), st.integers(0, 30), st.text(max_size=8))
def test_damaged_manifests(start: int, length: int, instead: str) -> None:
    survives(DIGITS[:start] + instead + DIGITS[start + length :])


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(KEYS, VALUES)))
def test_any_values(manifest: dict[str, object]) -> None:
    survives(json.dumps(manifest))


@pytest.mark.parametrize(
    "text", ["? [a]\n: b", "a: &a {b: *a}", "<<: {a: 1}", "a: 1e999", "a: 0x", "- *x", "%YAML 3.0", "\ufeff"]
)
def test_odd_yaml(text: str) -> None:
    survives(text)
