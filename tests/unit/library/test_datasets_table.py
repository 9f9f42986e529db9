"""Data sets from tables: several modalities per row, and rows that name what is not there."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import EncephalonError, InvalidInput
from encephalon.library.datasets import DataSetOptions, Sample, add_data_set, cells, open_data_set, silent
from encephalon.library.datasets.table import table_source
from encephalon.library.library import Library
from tests.unit.library.data_sets import opened, save_picture

Rows = Sequence[Sequence[Any]]


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with opened(tmp_path / "library") as library:
        yield library


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With pictures p/0.png to p/9.png and sounds s/0.wav to s/9.wav; each of the shade or level of its number."""
    folder = tmp_path / "set"
    for number in range(10):
        save_picture(folder / "p" / f"{number}.png", number)
    (folder / "s").mkdir()
    for number in range(10):
        soundfile.write(folder / "s" / f"{number}.wav", np.full(10 + number, number * 100, np.int16), 8000)
    return folder


def save_csv(path: Path, rows: Rows, **how: Any) -> Path:
    with path.open("w", newline="", encoding=how.pop("encoding", "utf-8")) as file:
        csv.writer(file, **how).writerows(rows)
    return path


def save_parquet(path: Path, rows: Rows) -> Path:
    header, *below = rows
    pyarrow.parquet.write_table(pa.table({name: [row[at] for row in below] for at, name in enumerate(header)}), path)
    return path


async def samples(library: Library, record: pb.Record, split: str = "train") -> list[Sample]:
    async with open_data_set(library, f"{record.id.name}@{record.id.version}", split, shuffle=False) as reader:
        return [sample async for sample in reader]


def pairs(count: int = 10) -> list[list[Any]]:
    return [[f"p/{n}.png", f"s/{n}.wav", f"c{n % 3}", "test" if n > 7 else "train", n / 2] for n in range(count)]


HEADER = ["picture", "sound", "label", "split", "height"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon", "excel", "parquet"])
async def test_a_row_has_several_modalities(library: Library, folder: Path, kind: str) -> None:
    rows = [HEADER, *pairs()]
    match kind:
        case "tsv":
            table = save_csv(folder / "t.tsv", rows, delimiter="\t")
        case "semicolon":
            table = save_csv(folder / "t.csv", rows, delimiter=";")
        case "excel":
            table = save_csv(folder / "t.csv", rows, encoding="utf-8-sig")
        case "parquet":
            table = save_parquet(folder / "t.parquet", rows)
        case _:
            table = save_csv(folder / "t.csv", rows)
    record = await add_data_set(library, table, "set", DataSetOptions(shuffle=False, colour="grey"))
    assert [one.name for one in record.data_set.modalities] == ["picture", "sound", "label"]
    assert [one.type for one in record.data_set.modalities] == ["image", "audio", "label"]
    assert {split.name: split.samples for split in record.data_set.splits} == {"train": 8, "test": 2}
    for number, sample in enumerate(await samples(library, record)):
        assert np.shape(sample["picture"]) == (6, 8)
        assert len(sample["sound"]) == 10 + number  # type: ignore[arg-type]
        assert (sample["sound"] == number * 100).all()  # type: ignore[union-attr]
        assert sample["label"] == number % 3


async def test_modalities_are_named_and_typed(library: Library, folder: Path) -> None:
    table = save_csv(folder / "t.csv", [HEADER, *pairs()])
    options = DataSetOptions(
        modalities={"image": "picture", "height": "height", "name": "picture", "rank": "height"},
        types={"name": "text", "rank": "text"},
        label="sound",
        split_column="label",
        shuffle=False,
    )
    record = await add_data_set(library, table, "set", options)
    found = {one.name: (one.type, one.datatype) for one in record.data_set.modalities}
    assert found["image"] == ("image", "UINT8")
    assert found["height"] == ("tensor", "FP64")
    assert found["name"] == found["rank"] == ("text", "BYTES")
    assert [split.name for split in record.data_set.splits] == ["c0", "c1", "c2"]
    first, second, *_ = await samples(library, record, "c1")
    assert (first["height"], first["name"], first["rank"]) == (0.5, "p/1.png", "0.5")
    assert second["height"] == 2.0


async def test_whole_numbers_stay_whole(library: Library, folder: Path) -> None:
    table = save_parquet(folder / "t.parquet", [["p", "age"], *[[f"p/{n}.png", 2**60 + n] for n in range(3)]])
    record = await add_data_set(
        library, table, "set", DataSetOptions(modalities={"p": "p", "age": "age"}, shuffle=False)
    )
    assert [sample["age"] for sample in await samples(library, record)] == [2**60, 2**60 + 1, 2**60 + 2]


async def test_labels_stay_as_they_are_written(library: Library, folder: Path) -> None:
    rows = [["p", "class"], *[[f"p/{n}.png", f"00{n % 2}"] for n in range(4)]]
    record = await add_data_set(library, save_csv(folder / "t.csv", rows), "set")
    assert list(record.data_set.modalities[-1].classes) == ["000", "001"]
    assert record.data_set.statistics["train.label.count.001"] == 2


async def test_a_table_may_have_no_label_and_a_drawn_split(library: Library, folder: Path) -> None:
    table = save_csv(folder / "t.csv", [["p"], *[[f"p/{n}.png"] for n in range(10)]])
    record = await add_data_set(library, table, "set", DataSetOptions(split=0.7))
    assert [split.samples for split in record.data_set.splits] == [7, 3]
    assert [one.name for one in record.data_set.modalities] == ["p"]


async def test_a_picture_with_several_captions_is_in_one_split(library: Library, folder: Path) -> None:
    rows = [["p", "caption"], *[[f"p/{n % 10}.png", f"caption {n}"] for n in range(50)]]
    options = DataSetOptions(modalities={"p": "p", "caption": "caption"}, split=0.7)
    record = await add_data_set(library, save_csv(folder / "t.csv", rows), "set", options)
    assert [split.samples for split in record.data_set.splits] == [35, 15]
    train, test = [
        {int(str(sample["caption"])[8:]) % 10 for sample in await samples(library, record, split)}
        for split in ("train", "test")
    ]
    assert (len(train), len(test), train & test) == (7, 3, set())


async def test_every_broken_row_is_named_and_nothing_is_added(library: Library, folder: Path, tmp_path: Path) -> None:
    secret = save_picture(tmp_path / "secret.png")
    (folder / "p" / "link.png").symlink_to(secret)
    (folder / "p" / "empty.png").touch()
    (folder / "inside.png").symlink_to(folder / "p" / "3.png")
    bad = {
        "../secret.png": "leads out",
        str(secret): "leads out",
        "p/../../secret.png": "leads out",
        "p/link.png": "leads out",
        "p/none.png": "is missing",
        "p/empty.png": "is empty",
        "p": "is no file",
        "": "names no file",
        "p/" + "x" * 5000: "File name too long",
    }
    good = [["p/1.png", "s/1.wav", "a", "train"], ["inside.png", "s/2.wav", "a", "train"]]
    rows = [HEADER[:4], *good, *[[path, "s/1.wav", "a", "train"] for path in bad]]
    rows += [
        ["p/1.png", "s/none.wav", "a", "train"],
        ["p/1.png", "s/1.wav", "", "train"],
        ["p/1.png", "s/1.wav", "a", ""],
    ]
    table = save_csv(folder / "t.csv", rows)
    options = DataSetOptions(modalities={"picture": "picture", "sound": "sound"})
    with pytest.raises(InvalidInput, match="12 of 14 samples") as raised:
        await add_data_set(library, table, "set", options)
    said = raised.value.message.splitlines()[1:]
    assert len(said) == 12
    for number, (line, why) in enumerate(zip(said, bad.values(), strict=False), 3):
        assert line.startswith(f"  row {number}, picture: ")
        assert why in line, line
    assert "row 12, sound: 's/none.wav' is missing" in said[9]
    assert "row 13, label is empty" in said[10]
    assert "row 14 names no split" in said[11]
    assert not await library.names("data_set")
    skipping = DataSetOptions(modalities={"picture": "picture", "sound": "sound"}, skip_broken=True)
    record = await add_data_set(library, table, "set", skipping)
    assert (record.data_set.splits[0].samples, record.data_set.statistics["left_out"]) == (2, 12)


async def test_numbers_that_are_none_are_broken(library: Library, folder: Path) -> None:
    rows = [["p", "age"], ["p/1.png", "3"], ["p/2.png", "old"], ["p/3.png", ""], ["p/4.png", "1e400"]]
    table = save_csv(folder / "t.csv", rows)
    options = DataSetOptions(modalities={"p": "p", "age": "age"}, skip_broken=True)
    record = await add_data_set(library, table, "set", options)
    assert record.data_set.statistics["left_out"] == 3


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.csv", b"", "no table that can be read"),
        ("t.csv", b"p,label\n", "no rows"),
        ("t.csv", b"p,label\np/1.png\n", "no table that can be read"),
        ("t.csv", b"p,p\np/1.png,p/1.png\n", "several columns of one name"),
        ("t.csv", b"p,label\n\xff\xfe,a\n", "no table that can be read"),
        ("t.csv", b"name,age\nBob,3\n", "no column of"),
        ("t.parquet", b"PAR1 is not all", "no table that can be read"),
    ],
)
async def test_what_is_no_table_is_refused(library: Library, folder: Path, name: str, content: bytes, why: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=why):
        await add_data_set(library, folder / name, "set")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"label": "lable"}, "did you mean 'label'"),
        ({"modalities": {"image": "nothing at all"}}, "it has picture, sound"),
        ({"split_column": "kind"}, "no column 'kind'"),
        ({"split": 0.5}, "names the splits already"),
        ({"modalities": {"label": "picture"}}, "not 'label'"),
        ({"modalities": {"": "picture"}}, "1 to 64 characters"),
        ({"raw": Path("x")}, "belong to recipes"),
    ],
)
async def test_options_that_do_not_fit_the_table(
    library: Library, folder: Path, options: dict[str, Any], why: str
) -> None:
    table = save_csv(folder / "t.csv", [HEADER, *pairs()])
    with pytest.raises(InvalidInput, match=why):
        await add_data_set(library, table, "set", DataSetOptions(**options))


async def test_columns_of_lists_are_refused(library: Library, folder: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"p": ["p/1.png"], "label": [[1, 2]]}), folder / "t.parquet")
    with pytest.raises(InvalidInput, match="'label' holds list"):
        await add_data_set(library, folder / "t.parquet", "set")


async def test_columns_that_are_not_used_may_hold_anything(library: Library, folder: Path) -> None:
    columns = {"p": ["p/1.png", "p/2.png"], "label": ["a", "b"], "embedding": [[1.0], [2.0]], "raw": [b"\xff", b"\xfe"]}
    pyarrow.parquet.write_table(pa.table(columns), folder / "t.parquet")
    record = await add_data_set(library, folder / "t.parquet", "set")
    assert [one.name for one in record.data_set.modalities] == ["p", "label"]


async def test_a_table_of_absurdly_many_rows_is_refused(
    library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "MOST_ROWS", 1000)
    pyarrow.parquet.write_table(pa.table({"p": pa.nulls(1001)}), folder / "t.parquet")
    with pytest.raises(InvalidInput, match="has 1001 rows, at most 1000 are taken"):
        await add_data_set(library, folder / "t.parquet", "set")


async def test_too_many_classes_are_refused(library: Library, folder: Path) -> None:
    rows = [["p", "label"], *[["p/1.png", f"{n:050}"] for n in range(6000)]]
    with pytest.raises(InvalidInput, match="6000 different labels"):
        await add_data_set(library, save_csv(folder / "t.csv", rows), "set")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(["csv", "tsv", "parquet"]))
def test_any_bytes_are_a_table_or_refused(folder: Path, content: bytes, kind: str) -> None:
    path = folder / f"any.{kind}"
    path.write_bytes(content)
    with pytest.raises(EncephalonError):
        table_source(path, DataSetOptions(), silent)
