"""Modalities as columns of Arrow files: what goes in comes out, and the same samples give the same bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import Corrupt, InvalidInput
from encephalon.core.wire import DATATYPES, dtype_of
from encephalon.library.datasets.columns import column_of, schema_of
from encephalon.library.datasets.messages import unfolds
from encephalon.library.datasets.shards import ShardFile
from encephalon.library.datasets.shelf import OpenShard
from tests.unit.library.data_sets import columns_of

NUMBERS = [name for name in DATATYPES if name != "BYTES"]


def written(path: Path, modalities: list[pb.Modality], *batches: dict[str, Any]) -> pb.Shard:
    with ShardFile(path, [column_of(modality) for modality in modalities]) as shard:
        for batch in batches:
            shard.add(batch)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return pb.Shard(object=pb.Object(sha256=digest, size=path.stat().st_size), samples=shard.samples)


def read(path: Path, modalities: list[pb.Modality], shard: pb.Shard) -> list[dict[str, Any]]:
    found = OpenShard(path, [column_of(modality) for modality in modalities], shard)
    rows = [found.batch_of(row) for row in range(shard.samples)]
    return [{name: values[at] for name, values in columns.items()} for columns, at in rows]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_of_one_shape_come_back(datatype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    modality = pb.Modality(name="x", type="tensor", datatype=datatype, shape=shape)
    values = np.random.default_rng(0).integers(0, 2, (5, *shape)).astype(dtype_of(datatype))
    shard = written(tmp_path / "s", [modality], {"x": values[:2]}, {"x": values[2:]})
    for row, sample in enumerate(read(tmp_path / "s", [modality], shard)):
        assert sample["x"].dtype == dtype_of(datatype)
        np.testing.assert_array_equal(sample["x"], values[row])


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_of_several_shapes_come_back(datatype: str, tmp_path: Path) -> None:
    modality = pb.Modality(name="x", type="tensor", datatype=datatype, shape=[-1, 2])
    values = [np.arange(size * 2).reshape(size, 2).astype(dtype_of(datatype)) for size in (3, 0, 1, 7)]
    shard = written(tmp_path / "s", [modality], {"x": values})
    for sample, value in zip(read(tmp_path / "s", [modality], shard), values, strict=True):
        np.testing.assert_array_equal(sample["x"], value)
        assert sample["x"].dtype == dtype_of(datatype)
        assert sample["x"].shape == value.shape


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8), st.lists(st.binary(max_size=20), min_size=1, max_size=8))
def test_text_and_bytes_come_back(texts: list[str], blobs: list[bytes]) -> None:
    text = column_of(pb.Modality(name="t", type="text", datatype="BYTES"))
    blob = column_of(pb.Modality(name="b", type="tensor", datatype="BYTES"))
    assert text.decode(text.encode(texts)) == texts
    assert blob.decode(blob.encode(blobs)) == blobs


def test_any_arrow_program_reads_a_shard(tmp_path: Path) -> None:
    modality = [pb.Modality(name="x", datatype="UINT8", shape=[4, 3]), pb.Modality(name="label", datatype="INT64")]
    columns = columns_of(5)
    written(tmp_path / "s", modality, {"x": columns["image"], "label": columns["label"]})
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "s"))).read_all()
    assert table.column("label").to_pylist() == [0, 1, 2, 3, 4]
    assert table.schema.field("x").type.shape == [4, 3]
    np.testing.assert_array_equal(table.column("x").combine_chunks().to_numpy_ndarray(), columns["image"])


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    modalities = [
        pb.Modality(name="image", type="image", datatype="UINT8", shape=[4, 3]),
        pb.Modality(name="sound", type="audio", datatype="INT16", shape=[-1]),
        pb.Modality(name="caption", type="text", datatype="BYTES"),
        pb.Modality(name="flag", type="tensor", datatype="BOOL"),
        pb.Modality(name="label", type="label", datatype="INT64"),
    ]
    digests = {written(tmp_path / name, modalities, columns_of(30)).object.sha256 for name in ("a", "b")}
    # Other memory layouts of the same values, too.
    again = columns_of(30)
    again["image"] = np.asfortranarray(again["image"])
    again["label"] = np.repeat(again["label"], 2)[::2].astype(np.int32)
    assert len(digests | {written(tmp_path / "c", modalities, again).object.sha256}) == 1


def test_views_are_of_the_mapped_file(tmp_path: Path) -> None:
    modality = pb.Modality(name="x", datatype="FP32", shape=[1000])
    shard = written(tmp_path / "s", [modality], {"x": np.ones((4, 1000), np.float32)})
    before = pa.total_allocated_bytes()
    samples = read(tmp_path / "s", [modality], shard)
    assert pa.total_allocated_bytes() - before < 1000
    assert not any(sample["x"].flags.writeable for sample in samples)
    (tmp_path / "s").unlink()
    assert all((sample["x"] == 1).all() for sample in samples)


@pytest.mark.parametrize(
    ("modality", "values"),
    [
        (pb.Modality(name="x", datatype="UINT8", shape=[3]), np.zeros((2, 4), np.uint8)),
        (pb.Modality(name="x", datatype="UINT8", shape=[3]), np.zeros((2, 3), np.int64)),
        (pb.Modality(name="x", datatype="FP32", shape=[]), np.zeros(2, np.float64)),
        (pb.Modality(name="x", datatype="INT16", shape=[-1]), [np.zeros((2, 2), np.int16)]),
        (pb.Modality(name="x", datatype="INT16", shape=[-1, 2]), [np.zeros((2, 3), np.int16)]),
        (pb.Modality(name="x", datatype="INT16", shape=[-1]), [np.zeros(2, np.float32)]),
        (pb.Modality(name="x", datatype="BYTES", type="text"), [b"\xff"]),
        (pb.Modality(name="x", datatype="BYTES", type="text"), [1]),
        (pb.Modality(name="x", datatype="BYTES", type="text"), ["\ud800"]),
        (pb.Modality(name="x", datatype="BYTES", type="tensor"), [None]),
    ],
)
def test_what_does_not_fit_is_refused(modality: pb.Modality, values: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'x'"):
        written(tmp_path / "s", [modality], {"x": values})


@pytest.mark.parametrize(
    "modality",
    [
        pb.Modality(name="x", datatype="BYTES", shape=[2]),
        pb.Modality(name="x", datatype="UINT8", shape=[0]),
        pb.Modality(name="x", datatype="UINT8", shape=[-2]),
        pb.Modality(name="x", datatype="FP8", shape=[2]),
    ],
)
def test_what_is_no_modality_is_refused(modality: pb.Modality) -> None:
    with pytest.raises(InvalidInput):
        column_of(modality)


def test_batches_have_all_columns_of_one_length(tmp_path: Path) -> None:
    modalities = [pb.Modality(name="x", datatype="FP32"), pb.Modality(name="y", datatype="FP32")]
    x = np.zeros(3, np.float32)
    for batch in ({"x": x}, {"x": x, "y": x, "z": x}, {"x": x, "y": x[:2]}):
        with pytest.raises(InvalidInput, match="batch"):
            written(tmp_path / "s", modalities, batch)


def test_a_shard_is_compared_with_its_record(tmp_path: Path) -> None:
    modality = pb.Modality(name="x", datatype="INT16", shape=[-1])
    shard = written(tmp_path / "s", [modality], {"x": [np.zeros(9, np.int16)] * 4})
    with pytest.raises(Corrupt, match="4 samples, its record says 5"):
        read(tmp_path / "s", [modality], pb.Shard(object=shard.object, samples=5))
    with pytest.raises(Corrupt, match="than its record names"):
        read(tmp_path / "s", [pb.Modality(name="x", datatype="INT16", shape=[9])], shard)
    (tmp_path / "t").write_bytes(b"ARROW1" * 100)
    with pytest.raises(Corrupt, match="no Arrow file"):
        read(tmp_path / "t", [modality], shard)


@pytest.mark.parametrize("codec", ["zstd", "lz4", None])
def test_a_shard_that_unfolds_is_refused_before_it_does(tmp_path: Path, codec: str | None) -> None:
    modality = pb.Modality(name="x", datatype="UINT8", shape=[1 << 20])
    column, rows = column_of(modality), np.zeros((3, 1 << 20), np.uint8)
    batch = pa.record_batch([column.encode(rows)], schema=schema_of([column]))
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.OSFile(str(tmp_path / "s"), "wb") as file, pa.ipc.new_file(file, batch.schema, options=options) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch)
    shard = pb.Shard(object=pb.Object(sha256="0" * 64), samples=6)
    del batch
    before = pa.total_allocated_bytes()
    if codec is None:
        assert len(read(tmp_path / "s", [modality], shard)) == 6
        return
    with pytest.raises(Corrupt, match="it is compressed"):
        read(tmp_path / "s", [modality], shard)
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_a_file_with_dictionaries_unfolds(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array(["a", "b", "a"]).dictionary_encode()})
    with pa.OSFile(str(tmp_path / "s"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    assert unfolds(memoryview((tmp_path / "s").read_bytes()))


@pytest.mark.parametrize("seed", range(40))
def test_no_damage_leads_out_of_the_file(seed: int, tmp_path: Path) -> None:
    """A shard from a stranger's archive has the digest that its record names, and may hold anything."""
    modalities = [
        pb.Modality(name="x", datatype="INT16", shape=[-1]),
        pb.Modality(name="t", type="text", datatype="BYTES"),
    ]
    batch = {"x": [np.arange(row, dtype=np.int16) for row in range(20)], "t": ["é" * row for row in range(20)]}
    shard = written(tmp_path / "s", modalities, batch)
    data = bytearray((tmp_path / "s").read_bytes())
    random = np.random.default_rng(seed)
    for at in random.integers(0, len(data), 1 + seed % 8):
        data[at] = random.integers(256)
    if seed % 10 == 0:
        del data[int(random.integers(len(data))) :]
    (tmp_path / "s").write_bytes(data)
    try:
        for sample in read(tmp_path / "s", modalities, shard):
            assert sample["x"].sum() is not None
            assert isinstance(sample["t"], str)
    except Corrupt:
        pass


@pytest.mark.parametrize("shape", [[1 << 40], [1 << 20, 1 << 20, -1], [(1 << 62) - 1, 8]])
def test_an_absurd_shape_is_refused(shape: list[int]) -> None:
    with pytest.raises(InvalidInput, match="2147483647 numbers at most"):
        column_of(pb.Modality(name="x", datatype="INT16", shape=shape))


def test_bfloat16_is_kept(tmp_path: Path) -> None:
    modality = pb.Modality(name="x", datatype="BF16", shape=[2])
    values = np.array([[1.5, -2.25]], ml_dtypes.bfloat16)
    shard = written(tmp_path / "s", [modality], {"x": values})
    assert read(tmp_path / "s", [modality], shard)[0]["x"].tolist() == [1.5, -2.25]
