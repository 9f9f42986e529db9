from __future__ import annotations

from pathlib import Path

import pytest

from encephalon.cli.followers import NotServed, follower, place_of, why_not
from encephalon.cli.library.place import Place
from encephalon.cli.rollback import alias_of
from encephalon.cli.swap import changes_of, followed_alias, in_words
from encephalon.cli.up import runnable, source_of
from encephalon.client import BrainDescription, PendingVersion
from encephalon.core.errors import FailedPrecondition, InvalidInput, NotFound
from encephalon.local import RunFile


def record(follows: str = "digits@production", stores: str = "") -> RunFile:
    return RunFile("digits", 1, 0.0, "h:1", "/brain.yaml", "here", follows=follows, library="default", stores=stores)


def test_one_region_or_several() -> None:
    assert changes_of(["visual"], "vision/003") == {"visual": "vision/003"}
    assert changes_of(["visual=vision/003", "association=mine@2"], None) == {
        "visual": "vision/003",
        "association": "mine@2",
    }


@pytest.mark.parametrize(
    ("regions", "network", "sentence"),
    [
        (["visual"], None, "write it as visual=vision/003"),
        (["visual="], None, "write it as visual=vision/003"),
        (["=vision/003"], None, "write it as visual=vision/003"),
        (["visual", "auditory"], "vision/003", "--network goes with one region"),
        (["visual=a"], "vision/003", "--network goes with one region"),
        (["visual=a", "visual=b"], None, "given twice"),
    ],
)
def test_what_cannot_be_meant(regions: list[str], network: str | None, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        changes_of(regions, network)


def test_the_alias_that_is_followed_moves() -> None:
    assert followed_alias(record()) == "production"
    assert followed_alias(record("digits@latest")) == "latest"
    with pytest.raises(FailedPrecondition, match="runs version 3 whatever happens"):
        followed_alias(record("digits@3"))
    assert [alias_of(text) for text in ("", "digits@3", "digits@latest", "digits@mine")] == [
        "production", "production", "production", "mine",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("alias", "sentence"),
    [
        ("production", "Brain 'digits' is version 5 now, with visual=a@1; `encephalon rollback digits` goes back."),
        (
            "mine",
            "'mine' of brain 'digits' means version 5 now, with visual=a@1; "
            "`encephalon rollback digits --alias mine` goes back.",
        ),
        (
            "latest",
            "'latest' of brain 'digits' means version 5 now, with visual=a@1; "
            "`encephalon library remove brain:digits@5` goes back.",
        ),
    ],
)
def test_what_was_swapped_and_what_goes_back(alias: str, sentence: str) -> None:
    done = {"brain": "digits", "version": 5, "alias": alias, "networks": {"visual": "a@1"}, "carried": {}}
    assert in_words(done, "digits@production") == sentence


def test_a_brain_that_does_not_run_or_follows_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no brain runs here; start one"):
        follower(None, tmp_path)


def test_the_stores_of_a_running_brain_must_be_named_unless_they_are_embedded(tmp_path: Path) -> None:
    assert place_of(record(), Place(tmp_path)) == Place(tmp_path, namespace="default")
    with pytest.raises(FailedPrecondition, match="runs on etcd://h:1; give --etcd and --minio"):
        place_of(record(stores="etcd://h:1"), Place(tmp_path))


@pytest.mark.parametrize(
    ("version", "pending", "reason"),
    [
        ("2", None, ""),
        ("1", None, "version 1 is in service"),
        ("1", PendingVersion("2", "it waits", False), "it waits"),
        ("1", PendingVersion("2", "it is broken", True), "version 2 cannot be served: it is broken"),
        ("1", PendingVersion("3", "it is broken", True), "version 1 is in service"),
    ],
)
def test_why_a_version_is_not_served(version: str, pending: PendingVersion | None, reason: str) -> None:
    found = BrainDescription("digits", version, "{}", (), "digits@production", pending)
    if pending is not None and pending.failed and pending.version == "2":
        with pytest.raises(NotServed, match=reason):
            why_not(found, "2")
    else:
        assert why_not(found, "2") == reason


def test_a_manifest_is_a_file_or_called_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "brain").write_text("brain: x")
    assert source_of("digits") == "digits", "a folder of this name is no manifest"
    assert source_of("digits@production") == "digits@production"
    assert source_of("none.yaml") == Path("none.yaml")
    assert source_of("brain") == Path("brain")
    assert source_of(str(tmp_path)) == tmp_path
    with pytest.raises(InvalidInput, match="no name of a brain that can run"):
        runnable("mine/digits")
