"""Drafts are checked at the border, and records become summaries and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.records.checks import MAX_PARENTS, check_draft, check_record
from encephalon.library.records.named import digests_of, objects_of
from encephalon.library.records.summary import summary_of
from encephalon.library.records.view import as_json
from tests.drafts import brain, data_set, network, run, scene

WEIGHTS = pb.Object(sha256="ab" * 32, size=5)
NAN = float("nan")


def refused(draft: pb.Record, sentence: str, change: Callable[[pb.Record], object]) -> None:
    change(draft)
    with pytest.raises(InvalidInput, match=sentence):
        check_draft(draft)


@pytest.mark.parametrize("draft", [network(), network(weights=WEIGHTS), data_set(), brain(), scene(), run(log=WEIGHTS)])
def test_good_drafts_pass(draft: pb.Record) -> None:
    check_draft(draft)


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("'../up' is no name", lambda draft: setattr(draft.id, "name", "../up")),
        ("'' is no name", lambda draft: setattr(draft.id, "name", "")),
        ("0 is no kind", lambda draft: draft.ClearField("id")),
        ("has no body, expected that of a network", lambda draft: draft.ClearField("network")),
        ("has the body of a scene", lambda draft: draft.scene.SetInParent()),
        ("description has 20001 characters", lambda draft: setattr(draft, "description", "x" * 20_001)),
        ("description has a character that cannot be printed", lambda draft: setattr(draft, "description", "a\x00")),
        ("licence has 501", lambda draft: setattr(draft, "licence", "x" * 501)),
        (r"origin 'a\\nb' has a character", lambda draft: setattr(draft, "origin", "a\nb")),
        ("name of a tag is missing", lambda draft: draft.tags.update({"": "x"})),
        ("101 tags", lambda draft: draft.tags.update({str(number): "" for number in range(101)})),
        ("the tag 'a' has 1001", lambda draft: draft.tags.update({"a": "x" * 1001})),
        ("'loss' of the metrics is nan", lambda draft: draft.metrics.update({"loss": NAN})),
        ("'loss' of the metrics is inf", lambda draft: draft.metrics.update({"loss": float("inf")})),
        ("code of the network is '1'", lambda draft: setattr(draft.network, "code", "1")),
        ("code of the network is '٠٠١'", lambda draft: setattr(draft.network, "code", "٠٠١")),
        ("the arguments is a JSON array", lambda draft: setattr(draft.network, "arguments", "[1]")),
        ("the arguments is no JSON", lambda draft: setattr(draft.network, "arguments", '{"a": NaN}')),
        ("the arguments is no JSON", lambda draft: setattr(draft.network, "arguments", "[" * 100_000)),
        ("nested deeper than 64", lambda draft: setattr(draft.network, "arguments", '{"a":' * 70 + "1" + "}" * 70)),
        ("digest 'ABAB", lambda draft: draft.network.weights.CopyFrom(pb.Object(sha256="AB" * 32))),
        ("format is ''", lambda draft: draft.network.weights.CopyFrom(WEIGHTS)),
        ("format 'onnx' and no weights", lambda draft: setattr(draft.network, "format", "onnx")),
        ("datatype 'FLOAT'", lambda draft: setattr(draft.network.contract.inputs[0], "datatype", "FLOAT")),
        (r"shape \[-2\]", lambda draft: draft.network.contract.inputs.add(name="b", datatype="FP32", shape=[-2])),
        ("the input 'image' is there twice", lambda draft: draft.network.contract.inputs.add(name="image")),
        ("at most 262144 are allowed", lambda draft: setattr(draft.network, "arguments", "x" * 300_000)),
        ("a parent has the version 0", lambda draft: draft.parents.add(role="x").record.CopyFrom(draft.id)),
        (
            f"at most {MAX_PARENTS} are allowed",
            lambda draft: [draft.parents.add(role="x") for _ in range(MAX_PARENTS + 1)],
        ),
    ],
)
def test_bad_drafts_of_networks_are_refused(sentence: str, change: Callable[[pb.Record], object]) -> None:
    refused(network(), sentence, change)


def test_a_parent_is_named_once_with_its_role() -> None:
    parent = pb.Parent(record=pb.Reference(kind=pb.KIND_RUN, name="first", version=1), role="run")
    refused(network(), "first@1 is a parent twice", lambda draft: draft.parents.extend([parent, parent]))
    refused(network(), "role of a parent is missing", lambda draft: draft.parents.add(record=parent.record))


@pytest.mark.parametrize(
    ("draft", "sentence", "change"),
    [
        (data_set(), "has no modalities", lambda body: body.ClearField("modalities")),
        (data_set(), "of the type 'smell'", lambda body: setattr(body.modalities[0], "type", "smell")),
        (data_set(), "the split 'train' is there twice", lambda body: body.splits.add(name="train")),
        (data_set(), "its shards hold 0", lambda body: setattr(body.splits[0], "samples", 3)),
        (data_set(index=pb.Object(sha256="ab" * 32, size=1 << 30)), "at most 67108864 are allowed", lambda body: None),
        (data_set("x", WEIGHTS), "shards and an index", lambda body: body.splits[0].index.CopyFrom(WEIGHTS)),
        (data_set(), "the parameters is a JSON number", lambda body: setattr(body, "parameters", "1")),
        (data_set(), "'mean' of the statistics is nan", lambda body: body.statistics.update(mean=NAN)),
        (scene(), "document is no JSON", lambda body: setattr(body, "document", "")),
        (brain(), "manifest is a JSON null", lambda body: setattr(body, "manifest", "null")),
        (brain(), "'visual' names no version", lambda body: body.networks["visual"].CopyFrom(network().id)),
        (run(), "state is 0", lambda body: setattr(body, "state", 0)),
        (run(), "ended before it started", lambda body: body.ended_time.FromSeconds(1)),
        (run(), "started_time is no time", lambda body: setattr(body.started_time, "seconds", 10**15)),
        (run(), "'../x' is no file name", lambda body: body.artefacts["../x"].CopyFrom(WEIGHTS)),
        (run(), "'/x' is no file name", lambda body: body.artefacts["/x"].CopyFrom(WEIGHTS)),
        (run(), "the artefact 'x' has the digest ''", lambda body: body.artefacts["x"].CopyFrom(pb.Object())),
    ],
)
def test_bad_bodies_are_refused(draft: pb.Record, sentence: str, change: Callable[[object], object]) -> None:
    copy = pb.Record()
    copy.CopyFrom(draft)
    refused(copy, sentence, lambda record: change(getattr(record, record.WhichOneof("body"))))


def test_an_imported_record_has_number_time_and_author() -> None:
    record = network()
    with pytest.raises(InvalidInput, match="the record's id has the version 0"):
        check_record(record)
    record.id.version = 1
    with pytest.raises(InvalidInput, match="no created_time"):
        check_record(record)
    record.created_time.seconds = 10**12
    with pytest.raises(InvalidInput, match="created_time is no time"):
        check_record(record)
    record.created_time.FromSeconds(1_700_000_000)
    check_record(record)


def test_all_objects_of_a_record_are_named() -> None:
    shards = [pb.Object(sha256=f"{number:064x}", size=number) for number in range(3)]
    assert list(objects_of(data_set("x", *shards))) == shards
    assert digests_of(data_set("x", index=WEIGHTS)) == digests_of(run(log=WEIGHTS)) == {WEIGHTS.sha256}
    assert digests_of(network(weights=WEIGHTS)) == {WEIGHTS.sha256}
    manifest = json.dumps({"regions": [{"weights": f"object:sha256:{WEIGHTS.sha256}"}]})
    assert digests_of(brain(manifest=manifest)) == {WEIGHTS.sha256}
    assert digests_of(brain(manifest=manifest.replace("a", "\\u0061"))) == {WEIGHTS.sha256}


def test_a_summary_has_what_a_list_shows() -> None:
    record = network(text="x" * 400)
    record.id.version = 2
    record.tags["team"] = "blue"
    for name in ("mnist", "audio"):
        record.parents.add(role="data_set").record.CopyFrom(pb.Reference(kind=pb.KIND_DATA_SET, name=name, version=1))
    summary = summary_of(record, 7)
    assert (summary.id, summary.area, summary.code, summary.size) == (record.id, "vision", "001", 7)
    assert (list(summary.modalities), list(summary.data_sets)) == (["image"], ["audio", "mnist"])
    assert (len(summary.description), dict(summary.tags), dict(summary.metrics)) == (
        300,
        {"team": "blue"},
        {"accuracy.test": 0.9},
    )
    assert list(summary_of(data_set(), 0).modalities) == list(summary_of(scene(), 0).modalities) == ["image"]


def test_the_view_is_plain_json() -> None:
    record = run(**{"log.txt": WEIGHTS})
    record.id.version = 12
    record.created_time.FromMilliseconds(1_700_000_000_123)
    record.tags["b"], record.tags["a"] = "2", "1"
    view = as_json(record)
    assert json.loads(json.dumps(view)) == view
    assert list(view)[:3] == ["kind", "name", "version"]
    assert view == {
        "kind": "run",
        "name": "first",
        "version": 12,
        "created_time": "2023-11-14T22:13:20.123Z",
        "tags": {"a": "1", "b": "2"},
        "run": {
            "state": "succeeded",
            "started_time": "2023-11-14T22:13:20.000Z",
            "ended_time": "2023-11-14T22:15:00.000Z",
            "settings": "{}",
            "artefacts": {"log.txt": {"sha256": "ab" * 32, "size": 5}},
        },
    }
    assert as_json(network())["network"]["contract"]["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28]}
    ]
