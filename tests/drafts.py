"""Drafts of records as somebody might write them, for tests."""

from __future__ import annotations

from encephalon.api.library.v1 import library_pb2 as pb

__all__ = ["brain", "data_set", "network", "parent", "run", "scene"]


def network(name: str = "digits", weights: pb.Object | None = None, *parents: pb.Parent, text: str = "") -> pb.Record:
    body = pb.Network(area="vision", code="001", architecture="LeNet5", arguments='{"classes": 10}')
    if weights is not None:
        body.weights.CopyFrom(weights)
        body.format = "safetensors"
    body.contract.inputs.add(name="image", datatype="FP32", shape=[-1, 1, 28, 28])
    body.contract.outputs.add(name="logits", datatype="FP32", shape=[-1, 10])
    id = pb.Reference(kind=pb.KIND_NETWORK, name=name)
    return pb.Record(id=id, network=body, parents=parents, description=text, metrics={"accuracy.test": 0.9})


def data_set(name: str = "pictures", *shards: pb.Object, index: pb.Object | None = None) -> pb.Record:
    split = pb.Split(name="train", samples=10 * len(shards))
    split.shards.extend(pb.Shard(object=shard, samples=10) for shard in shards)
    if index is not None:
        split.index.CopyFrom(index)
    modality = pb.Modality(name="image", type="image", datatype="UINT8", shape=[28, 28])
    id = pb.Reference(kind=pb.KIND_DATA_SET, name=name)
    return pb.Record(id=id, data_set=pb.DataSet(modalities=[modality], splits=[split], recipe="folder"))


def brain(name: str = "digits", manifest: str = '{"name": "digits"}', **networks: pb.Reference) -> pb.Record:
    id = pb.Reference(kind=pb.KIND_BRAIN, name=name)
    return pb.Record(id=id, brain=pb.Brain(manifest=manifest, networks=networks))


def scene(name: str = "see") -> pb.Record:
    id = pb.Reference(kind=pb.KIND_SCENE, name=name)
    return pb.Record(id=id, scene=pb.Scene(document='{"modalities": ["image"]}', modalities=["image"], goal="see"))


def run(name: str = "first", **artefacts: pb.Object) -> pb.Record:
    body = pb.Run(state=pb.Run.STATE_SUCCEEDED, settings="{}", artefacts=artefacts)
    body.started_time.FromSeconds(1_700_000_000)
    body.ended_time.FromSeconds(1_700_000_100)
    return pb.Record(id=pb.Reference(kind=pb.KIND_RUN, name=name), run=body)


def parent(record: pb.Record, role: str = "network") -> pb.Parent:
    return pb.Parent(record=record.id, role=role)
