"""Data sets from a folder per class: pictures and sounds of every format, and what is wrong with some of them."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import EncephalonError, InvalidInput, NotFound
from encephalon.library.datasets import DataSetOptions, Sample, add_arrays, add_data_set, open_data_set
from encephalon.library.datasets.media import Unreadable
from encephalon.library.datasets.pictures import Pictures
from encephalon.library.datasets.sounds import Sounds
from encephalon.library.library import Library
from tests.unit.library.data_sets import opened, save_picture


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with opened(tmp_path / "library") as library:
        yield library


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    return folder


def save_sound(path: Path, samples: Any, rate: int = 8000, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **how)
    return path


async def samples(library: Library, record: pb.Record, split: str = "train") -> list[Sample]:
    reference = f"{record.id.name}@{record.id.version}"
    async with open_data_set(library, reference, split, shuffle=False) as reader:
        return [sample async for sample in reader]


def modality(record: pb.Record, name: str) -> pb.Modality:
    return next(one for one in record.data_set.modalities if one.name == name)


async def refused(library: Library, source: Path, options: DataSetOptions | None = None) -> str:
    """What is said; afterwards nothing is in the library."""
    with pytest.raises(EncephalonError) as raised:
        await add_data_set(library, source, "set", options)
    assert not await library.names("data_set")
    assert not [entry async for entry in library.objects.list("sha256/")]
    return raised.value.message


FORMATS = ["a.png", "b.jpg", "c.JPEG", "d.bmp", "e.gif", "f.tif", "g.tiff", "h.webp"]


@pytest.mark.parametrize("mode", ["L", "RGB"])
async def test_every_format_of_pictures(library: Library, folder: Path, mode: str) -> None:
    for number, name in enumerate(FORMATS):
        if not (mode == "L" and name == "h.webp"):  # WebP knows no grey
            save_picture(folder / "x" / name, 20 * number, mode=mode)
    record = await add_data_set(library, folder, "set", DataSetOptions(colour="grey" if mode == "L" else "auto"))
    image = modality(record, "image")
    assert list(image.shape) == ([6, 8] if mode == "L" else [6, 8, 3])
    assert (image.type, image.datatype) == ("image", "UINT8")
    for sample in await samples(library, record):
        assert sample["image"].shape == tuple(image.shape)  # type: ignore[union-attr]


async def test_pixels_and_labels_are_those_of_the_files(library: Library, folder: Path) -> None:
    for label in ("10", "9", "2"):
        for number in range(3):
            save_picture(folder / label / f"{number}.png", int(label) * 10 + number)
    record = await add_data_set(library, folder, "set")
    assert list(modality(record, "label").classes) == ["2", "9", "10"]
    found = await samples(library, record)
    expected = {
        np.asarray(Image.open(path)).tobytes(): ["2", "9", "10"].index(path.parent.name)
        for path in folder.rglob("*.png")  # noqa: ASYNC240
    }
    assert {sample["image"].tobytes(): sample["label"] for sample in found} == expected  # type: ignore[union-attr]


async def test_grey_and_coloured_pictures_together_become_rgb(library: Library, folder: Path) -> None:
    save_picture(folder / "x" / "a.png", mode="L")
    save_picture(folder / "x" / "b.png", mode="RGB")
    save_picture(folder / "x" / "c.png", mode="1")
    save_picture(folder / "x" / "d.png", mode="P")
    record = await add_data_set(library, folder, "set")
    assert list(modality(record, "image").shape) == [6, 8, 3]
    record = await add_data_set(library, folder, "set", DataSetOptions(colour="grey"))
    assert list(modality(record, "image").shape) == [6, 8]


async def test_pictures_of_several_sizes(library: Library, folder: Path) -> None:
    save_picture(folder / "x" / "a.png", size=(8, 6))
    save_picture(folder / "x" / "b.png", size=(8, 9))
    record = await add_data_set(library, folder, "set")
    assert list(modality(record, "image").shape) == [-1, 8]
    assert {sample["image"].shape for sample in await samples(library, record)} == {(6, 8), (9, 8)}  # type: ignore[union-attr]
    record = await add_data_set(library, folder, "set", DataSetOptions(size=(5, 4)))
    assert list(modality(record, "image").shape) == [5, 4]
    assert {sample["image"].shape for sample in await samples(library, record)} == {(5, 4)}  # type: ignore[union-attr]


async def test_a_picture_on_its_side_is_turned(library: Library, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save_picture(folder / "x" / "a.jpg", size=(8, 6), exif=exif)
    record = await add_data_set(library, folder, "set")
    assert list(modality(record, "image").shape) == [8, 6]


async def test_only_the_first_picture_of_an_animation(library: Library, folder: Path) -> None:
    (folder / "x").mkdir()
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 128, 255)]
    frames[0].save(folder / "x" / "a.gif", save_all=True, append_images=frames[1:])
    record = await add_data_set(library, folder, "set", DataSetOptions(colour="grey"))
    (sample,) = await samples(library, record)
    assert (sample["image"] == 0).all()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
async def test_every_format_of_sounds(library: Library, folder: Path, name: str) -> None:
    tone = 0.5 * np.sin(2 * math.pi * 440 * np.arange(4000) / 8000)
    save_sound(folder / "x" / name, tone)
    record = await add_data_set(library, folder, "set")
    audio = modality(record, "audio")
    assert (audio.type, audio.datatype, audio.sample_rate) == ("audio", "INT16", 8000)
    (sample,) = await samples(library, record)
    heard = np.asarray(sample["audio"], np.float64)
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(0.5 / math.sqrt(2) * 32768, rel=0.1)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
async def test_sounds_of_every_width_have_one_scale(library: Library, folder: Path, subtype: str) -> None:
    save_sound(folder / "x" / "a.wav", np.array([0.0, 0.5, -0.5, 1.0]), subtype=subtype)
    (sample,) = await samples(library, await add_data_set(library, folder, "set"))
    np.testing.assert_allclose(sample["audio"], [0, 16384, -16384, 32767], atol=700)  # type: ignore[arg-type]


async def test_sounds_of_several_rates_are_resampled_when_asked(library: Library, folder: Path) -> None:
    for rate in (8000, 16000, 44100):
        tone = 0.5 * np.sin(2 * math.pi * 440 * np.arange(rate) / rate)
        save_sound(folder / "x" / f"{rate}.wav", tone, rate)
    assert "16000 Hz (1)" in await refused(library, folder)
    record = await add_data_set(library, folder, "set", DataSetOptions(sample_rate=8000))
    assert list(modality(record, "audio").shape) == [8000]
    reference = 0.5 * np.sin(2 * math.pi * 440 * np.arange(8000) / 8000) * 32768
    for sample in await samples(library, record):
        inner = slice(200, -200)  # the filter rings at the ends
        np.testing.assert_allclose(np.asarray(sample["audio"])[inner], reference[inner], atol=200)


async def test_sounds_are_cut_or_followed_by_silence(library: Library, folder: Path) -> None:
    save_sound(folder / "x" / "long.wav", np.full(9000, 0.25))
    save_sound(folder / "x" / "short.wav", np.full(100, 0.25))
    record = await add_data_set(library, folder, "set", DataSetOptions(shuffle=False))
    assert list(modality(record, "audio").shape) == [-1]
    assert [len(s["audio"]) for s in await samples(library, record)] == [9000, 100]  # type: ignore[arg-type]
    record = await add_data_set(library, folder, "set", DataSetOptions(shuffle=False, seconds=0.5))
    assert list(modality(record, "audio").shape) == [4000]
    long, short = await samples(library, record)
    assert (long["audio"] == 8192).all()  # type: ignore[union-attr]
    assert np.flatnonzero(short["audio"]).tolist() == list(range(100))


async def test_folders_for_splits(library: Library, folder: Path) -> None:
    for split, count in (("train", 3), ("test", 2), ("val", 1)):
        for label in "ab":
            for number in range(count):
                save_picture(folder / split / label / f"{number}.png", number)
    record = await add_data_set(library, folder, "set")
    assert {split.name: split.samples for split in record.data_set.splits} == {"train": 6, "test": 4, "val": 2}
    assert record.data_set.splits[0].name == "train"
    with pytest.raises(InvalidInput, match="leave out split"):
        await add_data_set(library, folder, "set", DataSetOptions(split=0.5))


async def test_a_drawn_split_is_stratified_and_stays(library: Library, folder: Path) -> None:
    for label, count in (("a", 50), ("b", 10), ("c", 2), ("d", 1)):
        for number in range(count):
            save_picture(folder / label / f"{number}.png", number, size=(2, 2))
    options = DataSetOptions(split=0.8, seed=7)
    record = await add_data_set(library, folder, "set", options)
    statistics = record.data_set.statistics
    counts = {
        (split, label): statistics[f"{split}.label.count.{label}"] for split in ("train", "test") for label in "abcd"
    }
    assert [counts["train", label] for label in "abcd"] == [40, 8, 1, 1]
    assert [counts["test", label] for label in "abcd"] == [10, 2, 1, 0]
    assert (await add_data_set(library, folder, "set", options)).id == record.id
    other = await add_data_set(library, folder, "set", DataSetOptions(split=0.8, seed=8))
    assert other.id.version == 2

    def shades(found: list[Sample]) -> set[bytes]:
        return {sample["image"].tobytes() for sample in found if sample["label"] == 0}  # type: ignore[union-attr]

    before = shades(await samples(library, record, "test"))
    save_picture(folder / "a" / "new.png", 99, size=(2, 2))
    after = shades(await samples(library, await add_data_set(library, folder, "set", options), "test"))
    assert len(before - after) <= 1


async def test_classes_are_mixed(library: Library, folder: Path) -> None:
    """A reader shuffles within a few shards; a shard of one class would teach one class at a time."""
    for label in "ab":
        for number in range(40):
            save_picture(folder / label / f"{number}.png", number, size=(2, 2))
    labels = [sample["label"] for sample in await samples(library, await add_data_set(library, folder, "set"))]
    assert 10 < sum(labels[:40]) < 30  # type: ignore[arg-type]
    options = DataSetOptions(shuffle=False)
    labels = [sample["label"] for sample in await samples(library, await add_data_set(library, folder, "set", options))]
    assert labels == [0] * 40 + [1] * 40


async def test_the_record_says_how_it_was_made(library: Library, folder: Path) -> None:
    save_picture(folder / "x" / "a.png")
    options = DataSetOptions(description="Two", licence="CC0-1.0", tags={"of": "us"}, size=(3, 3), seed=5)
    record = await add_data_set(library, folder, "set", options)
    assert (record.description, record.licence, record.origin, dict(record.tags)) == (
        "Two",
        "CC0-1.0",
        "set",
        {"of": "us"},
    )
    assert record.data_set.recipe == "folder"
    assert record.data_set.parameters == '{"seed": 5, "size": [3, 3]}'
    assert record.created_by


@pytest.mark.parametrize(("name", "how"), [("a.jpg", {"format": "MPO", "save_all": True}), ("a.webp", {})])
async def test_other_formats_of_cameras_are_turned_too(
    library: Library, folder: Path, name: str, how: dict[str, Any]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save_picture(folder / "x" / name, size=(8, 6), mode="RGB", exif=exif, **how)
    record = await add_data_set(library, folder, "set")
    assert list(modality(record, "image").shape) == [8, 6, 3]


def test_colours_of_sixteen_bits_are_not_cut_off(tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(png_that_says(8, 6, depth=16, colours=2))
    with pytest.raises(Unreadable, match="has 16 bits per channel, expected 8"):
        Pictures().examine(tmp_path / "deep.png")
    wide = save_picture(tmp_path / "wide.bmp", size=(16, 16), mode="RGB")
    assert Pictures().examine(wide) == (16, 16, 3)


@pytest.mark.parametrize(
    ("rate", "frames", "why"),
    [(1, 10, "has 1 Hz, expected 100 to 768000"), (2_000_003, 10, "Hz"), (100, 1_000_000, "160000000 samples at")],
)
def test_sounds_that_would_fill_the_memory_when_resampled(tmp_path: Path, rate: int, frames: int, why: str) -> None:
    save_sound(tmp_path / "a.wav", np.zeros(frames, np.int16), rate)
    with pytest.raises(Unreadable, match=why):
        Sounds(sample_rate=16_000).examine(tmp_path / "a.wav")


async def test_a_name_that_cannot_be_is_refused_before_anything_is_read(library: Library, folder: Path) -> None:
    save_picture(folder / ("x" * 201) / "a.png")
    told: list[str] = []
    with pytest.raises(InvalidInput, match="a class of 'label' has 201 characters"):
        await add_data_set(library, folder, "set", None, lambda what, *_: told.append(what))
    assert told == ["examining image", "examining image"]
    classes = [f"{number:0150}" for number in range(1500)]
    label = pb.Modality(name="label", type="label", datatype="INT64", classes=classes)
    with pytest.raises(InvalidInput, match=r"takes \d+ bytes, at most"):
        await add_arrays(library, "set", {"label": np.arange(9)}, {"train": slice(None)}, [label])


def png_that_says(width: int, height: int, depth: int = 8, colours: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    packed = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


BROKEN_PICTURES = {
    "empty.png": (b"", "is empty"),
    "text.png": (b"no picture at all", "is no picture"),
    "bomb.png": (png_that_says(60_000, 60_000), "bomb"),
    "large.png": (png_that_says(10_000, 10_000), "pixels"),
    "cut.jpg": (None, "cannot be decoded"),
    "alpha.png": ("RGBA", "channels RGBA"),
    "deep.png": ("I;16", "channels I;16"),
    "notes.txt": (b"words", "is no picture"),
}


async def test_broken_pictures_are_all_named_and_nothing_is_added(library: Library, folder: Path) -> None:
    for number in range(5):
        save_picture(folder / "x" / f"{number}.png", number)
    for name, (content, _) in BROKEN_PICTURES.items():
        path = folder / "x" / name
        if content is None:
            save_picture(path, size=(200, 200), quality=95)
            path.write_bytes(path.read_bytes()[:700])
        elif isinstance(content, str):
            Image.new(content, (8, 6)).save(path)
        else:
            path.write_bytes(content)
    (folder / "x" / ".hidden").write_text("is left out")
    (folder / "x" / "Thumbs.db").write_text("is left out")
    said = await refused(library, folder)
    assert said.startswith("7 of 13 samples cannot be read")
    assert "skip_broken" in said
    for name, (content, why) in BROKEN_PICTURES.items():
        if content is not None:  # only decoding shows it
            assert any(f"x/{name}" in line and why in line for line in said.splitlines()), name
    record = await add_data_set(library, folder, "set", DataSetOptions(skip_broken=True))
    assert record.data_set.splits[0].samples == 5
    assert record.data_set.statistics["left_out"] == 8
    (folder / "x" / "alpha.png").rename(folder / "alpha.png")
    for name in BROKEN_PICTURES:
        if name != "cut.jpg":
            (folder / "x" / name).unlink(missing_ok=True)
    with pytest.raises(InvalidInput, match=r"1 of 6 samples .*\n.*x/cut.jpg cannot be decoded"):
        await add_data_set(library, folder, "set", DataSetOptions(size=(6, 8)))
    assert await library.versions("data_set", "set") == [1]


def test_a_picture_just_above_the_limit_is_refused_where_pillow_only_warns(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png_that_says(10_000, 10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Unreadable, match="10000 x 10000 pixels"):
            Pictures().examine(tmp_path / "large.png")


async def test_transparent_pictures_are_converted_when_asked(library: Library, folder: Path) -> None:
    save_picture(folder / "x" / "a.png", mode="RGBA")
    record = await add_data_set(library, folder, "set", DataSetOptions(colour="rgb"))
    assert list(modality(record, "image").shape) == [6, 8, 3]


async def test_broken_sounds_are_all_named(library: Library, folder: Path) -> None:
    save_sound(folder / "x" / "good.wav", np.zeros(100))
    save_sound(folder / "x" / "stereo.wav", np.zeros((100, 2)))
    save_sound(folder / "x" / "silent.wav", np.zeros(0))
    save_sound(folder / "x" / "nan.wav", np.array([0.1, np.nan]), subtype="FLOAT")
    (folder / "x" / "text.flac").write_text("no sound at all")
    (folder / "x" / "empty.mp3").touch()
    said = await refused(library, folder)
    for name, why in (
        ("stereo.wav", "2 channels"),
        ("silent.wav", "0 samples"),
        ("text.flac", "decoded"),
        ("empty.mp3", "is empty"),
    ):
        assert any(f"x/{name}" in line and why in line for line in said.splitlines()), name
    record = await add_data_set(library, folder, "set", DataSetOptions(skip_broken=True))
    assert (record.data_set.splits[0].samples, record.data_set.statistics["left_out"]) == (1, 5)


async def test_at_most_twenty_are_named(library: Library, folder: Path) -> None:
    (folder / "x").mkdir()
    for number in range(30):
        (folder / "x" / f"{number:02}.png").write_text("no picture")
    save_picture(folder / "x" / "good.png")
    said = await refused(library, folder)
    assert said.startswith("30 of 31 samples")
    assert said.count("x/") == 20
    assert "x/00.png" in said.splitlines()[1]
    assert said.endswith("and 10 more")


async def test_what_is_no_folder_of_classes_is_refused(library: Library, folder: Path, tmp_path: Path) -> None:
    assert "no folder per class" in await refused(library, folder)
    save_picture(folder / "a.png")
    assert "no folder per class" in await refused(library, folder)
    (folder / "x").mkdir()
    assert "holds no file" in await refused(library, folder)
    (folder / "x" / "a.txt").write_text("words")
    assert "neither pictures nor sounds" in await refused(library, folder)
    save_picture(folder / "x" / "a.png")
    save_sound(folder / "x" / "a.wav", np.zeros(10))
    assert "a table gives both" in await refused(library, folder)
    with pytest.raises(NotFound, match="there is no data set at"):
        await add_data_set(library, tmp_path / "nowhere", "set")
    (tmp_path / "list.txt").write_text("words")
    assert "no folder and no table" in await refused(library, tmp_path / "list.txt")
    assert "does not fit" in await refused(library, folder, DataSetOptions(label="x"))
    assert "belong to recipes" in await refused(library, folder, DataSetOptions(parameters={"rank": 3}))


@pytest.mark.parametrize(
    "option",
    [
        {"split": 0.0}, {"split": 1.0}, {"seed": -1}, {"size": (0, 5)}, {"size": (5, 9000)}, {"colour": "blue"},
        {"sample_rate": 5}, {"seconds": 0.0}, {"types": {"x": "image"}},
        {"modalities": {"x": "y"}, "types": {"x": "video"}},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        DataSetOptions(**option)


async def test_progress_tells_what_is_done(library: Library, folder: Path) -> None:
    for number in range(5):
        save_picture(folder / "x" / f"{number}.png", number)
    told: list[tuple[str, int, int | None]] = []
    await add_data_set(library, folder, "set", None, lambda *said: told.append(said))
    assert ("examining image", 5, 5) in told
    assert ("packing train", 5, 5) in told
    assert told[-1] == ("storing shards", 1, 1)
