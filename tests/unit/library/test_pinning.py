"""A manifest as the library keeps it: weights by digest, sizes that fit, and what goes along with a swapped network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput, InvalidManifest, NotFound
from encephalon.library.brains import identity_of, parse_manifest
from encephalon.library.brains.pinning import pinned
from encephalon.library.brains.releases import brain_of
from encephalon.library.brains.swapping import swapped
from encephalon.library.library import Library
from tests.followed import Stores, add_brain, brain_text, library_in

DIGITS = """
brain: digits
inputs:
  image: {datatype: UINT8, shape: [-1, -1, -1], optional: true}
  audio: {datatype: INT16, shape: [-1, -1], optional: true}
regions:
  visual: {network: vision/002}
  auditory: {network: hearing/002%s}
  association: {network: association/001}
pathways:
  - {from: image, to: visual.image}
  - {from: audio, to: auditory.audio}
  - {from: visual.features, to: association.image_features, optional: true}
  - {from: auditory.features, to: association.audio_features, optional: true}
outputs: {probabilities: association.probabilities}
"""


def contract(kind: str, width: int, other: int = 0) -> pb.Contract:
    def spec(name: str, size: int, datatype: str = "FP32", rank: int = 2) -> pb.TensorSpec:
        return pb.TensorSpec(name=name, datatype=datatype, shape=[-1] * (rank - 1) + [size])

    if kind == "association":
        inputs = [spec("image_features", width), spec("audio_features", other)]
        return pb.Contract(inputs=inputs, outputs=[spec("probabilities", 10)])
    given = spec("image", -1, "UINT8", 3) if kind == "vision" else spec("audio", -1, "INT16")
    return pb.Contract(inputs=[given], outputs=[spec("features", width), spec("probabilities", 10)])


async def network(
    library: Library, name: str, area: str, code: str, width: int, other: int = 0, parents: tuple[str, ...] = ()
) -> str:
    """A network whose weights are its name; the digest."""
    async with library.writing("add") as writer:
        weights = await writer.put_bytes(f"{name} {width} {other}".encode())
        await writer.commit(
            pb.Record(
                id=pb.Reference(kind=pb.KIND_NETWORK, name=name),
                parents=[
                    pb.Parent(record=(await library.resolve(parent, "network")).message, role="network")
                    for parent in parents
                ],
                network=pb.Network(
                    area=area, code=code, weights=weights, format="safetensors", contract=contract(area, width, other)
                ),
            )
        )
    return str(weights.sha256)


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with library_in(Stores(tmp_path)) as library:
        await network(library, "vision/002", "vision", "002", 64)
        await network(library, "vision/003", "vision", "003", 32)
        await network(library, "hearing/002", "hearing", "002", 16)
        await network(library, "association/001", "association", "001", 64, 16, ("vision/002", "hearing/002"))
        yield library


async def test_every_network_is_named_by_its_digest_and_is_a_parent(library: Library) -> None:
    await network(library, "mine", "hearing", "002", 16)
    body, parents = await pinned(library, DIGITS % ", weights: 'library:mine@1'")
    brain = parse_manifest(body.manifest)
    for region, name in (("visual", "vision/002"), ("auditory", "mine"), ("association", "association/001")):
        record = await library.show(name, "network")
        assert brain.region(region).weights == f"object:sha256:{record.network.weights.sha256}"
        assert body.networks[region] == record.id
    assert {(parent.record.name, parent.role) for parent in parents} == {
        ("vision/002", "network"), ("mine", "network"), ("association/001", "network"),
    }  # fmt: skip
    assert [spec.name for spec in body.contract.inputs] == ["image", "audio"]
    await add_brain(library, DIGITS % "")
    again, parents = await pinned(library, body.manifest, known=body.networks)
    assert again == body
    assert (parents[-1].record.name, parents[-1].role) == ("digits", "previous")


async def test_networks_without_weights_stay_without(library: Library) -> None:
    body, parents = await pinned(library, brain_text(1))
    assert not body.networks
    assert not parents
    assert json.loads(body.manifest)["regions"]["first"]["arguments"] == {"offset": 1}


@pytest.mark.parametrize(
    ("more", "kind", "sentence"),
    [
        (", weights: 'library:none'", NotFound, "none"),
        (", weights: 'library:vision/002'", InvalidInput, "is of network hearing/002, and network 'vision/002'"),
        (", weights: my.safetensors", InvalidInput, "add it as a network first, then write weights: library:NAME"),
    ],
)
async def test_what_cannot_be_pinned_says_why(
    library: Library, more: str, kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        await pinned(library, DIGITS % more)


async def test_a_packaged_network_that_the_library_lacks_is_not_left_unpinned(tmp_path: Path) -> None:
    async with library_in(Stores(tmp_path / "other")) as empty:
        with pytest.raises(NotFound, match="vision/002"):
            await pinned(empty, DIGITS % "")


async def test_sizes_that_do_not_fit_name_the_pathway_and_its_line(library: Library) -> None:
    text = (DIGITS % "").replace("vision/002", "vision/003")
    with pytest.raises(InvalidManifest, match=r"line 13: pathway visual.features -> association.image_features"):
        await pinned(library, text)


async def test_a_swap_takes_along_the_one_network_that_was_trained_with_it(library: Library) -> None:
    await add_brain(library, DIGITS % "")
    before = await library.show("brain:digits")
    with pytest.raises(InvalidManifest, match="no network of the library for region 'association' was trained with"):
        await swapped(library, before, {"visual": "vision/003"})
    await network(library, "stranger", "association", "001", 32, 16)
    await network(library, "together", "association", "001", 32, 16, ("vision/003",))
    swap = await swapped(library, before, {"visual": "vision/003"})
    assert {region: str(network) for region, network in swap.carried.items()} == {"association": "network:together@1"}
    assert swap.draft.description == (
        "digits@1 with visual from vision/002 to vision/003, association from association/001 to together"
    )
    assert ("digits", 1, "previous") in {(p.record.name, p.record.version, p.role) for p in swap.draft.parents}
    record = await library.add(swap.draft)
    assert brain_of(record).region("visual").network == "vision/003"
    with pytest.raises(InvalidInput, match="runs vision/003 already"):
        await swapped(library, record, {"visual": "vision/003"})


async def test_of_several_networks_the_one_goes_along_that_knows_the_others_too(library: Library) -> None:
    await add_brain(library, DIGITS % "")
    before = await library.show("brain:digits")
    await network(library, "one", "association", "001", 32, 16, ("vision/003",))
    await network(library, "two", "association", "001", 32, 16, ("vision/003",))
    with pytest.raises(InvalidManifest, match="with association=one or association=two"):
        await swapped(library, before, {"visual": "vision/003"})
    await network(library, "three", "association", "001", 32, 16, ("vision/003", "hearing/002"))
    swap = await swapped(library, before, {"visual": "vision/003"})
    assert str(swap.carried["association"]) == "network:three@1"
    chosen = await swapped(library, before, {"visual": "vision/003", "association": "two"})
    assert not chosen.carried


async def test_swaps_that_cannot_be_meant(library: Library) -> None:
    await add_brain(library, DIGITS % "")
    before = await library.show("brain:digits")
    with pytest.raises(NotFound, match="has no region 'nose'"):
        await swapped(library, before, {"nose": "vision/003"})
    with pytest.raises(InvalidInput, match="is of area vision, and network 'hearing/002' of area hearing"):
        await swapped(library, before, {"visual": "hearing/002"})
    with pytest.raises(NotFound):
        await swapped(library, before, {"visual": "vision/030"})


def test_an_identity_is_that_of_what_answers() -> None:
    def identity(more: str = "", text: str = brain_text(1)) -> str:
        return identity_of(parse_manifest(text.replace("offset: 1}", f"offset: 1}}{more}")).region("first"))

    assert identity().startswith("diagnostics-001-")
    assert identity() == identity()
    assert identity(", replicas: 3") == identity(), "how many there are changes no answer"
    assert identity(", max_batch: 8") != identity()
    assert identity(text=brain_text(2)) != identity()
    assert identity(", weights: 'object:sha256:" + "0" * 64 + "'") != identity()
    assert len(identity()) <= 64
