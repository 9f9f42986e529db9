"""Names of objects: every key has its own, none leads out of the folder, prefixes stay prefixes."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from encephalon.core.errors import InvalidInput
from encephalon.state.names import key_of, name_of, prefix_of

KEYS = st.text(
    st.one_of(st.sampled_from("ab/.~% "), st.characters(exclude_categories=["Cs"])), min_size=1, max_size=60
) | st.builds(lambda piece, times: piece * times, st.sampled_from(["a", "é", "~", "a/", "."]), st.integers(1, 400))


def named(key: str) -> str:
    try:
        return name_of(key)
    except InvalidInput:
        assume(False)
        raise


@given(KEYS)
def test_a_name_gives_its_key_back(key: str) -> None:
    assert key_of(named(key)) == key


@given(KEYS)
def test_a_name_is_a_plain_path_below_its_folder(key: str) -> None:
    for segment in named(key).split("/"):
        assert 0 < len(segment) <= 255
        assert segment.isascii()
        assert segment.isprintable()
        assert not segment.startswith(".")


@given(KEYS, KEYS)
def test_no_object_stands_where_another_needs_a_folder(one: str, other: str) -> None:
    assume(one != other)
    assert named(one) != named(other)
    assert not named(one).startswith(named(other) + "/")


@given(KEYS, st.data())
def test_the_name_of_a_prefix_is_a_prefix_of_the_name(key: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(key)))
    assert named(key).startswith(prefix_of(key[:cut]))


@given(st.text(st.sampled_from("ab/.~%2F "), min_size=1, max_size=12))
def test_a_strange_name_gives_no_key_or_the_one_that_has_it(name: str) -> None:
    key = key_of(name)
    assert key is None or name_of(key) == name
