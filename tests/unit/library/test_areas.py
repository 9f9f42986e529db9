from __future__ import annotations

import subprocess
import sys

import pytest

from encephalon.core.errors import FailedPrecondition, NotFound
from encephalon.library.areas import AREAS, find_area, find_network


def test_the_areas_and_their_networks() -> None:
    assert {name: list(area.networks) for name, area in AREAS.items()} == {
        "vision": ["001", "002", "003", "004", "900"],
        "hearing": ["001", "002", "003", "004", "900"],
        "association": ["001", "900"],
        "diagnostics": ["001", "002", "003", "004", "005"],
        "graph": ["900", "901"],
    }
    for area in AREAS.values():
        assert {area.package_of(code) for code in area.networks} == {"encephalon"}
        if area.contract is not None:
            assert all(area.contract_of(code) == area.contract for code in area.networks)


def test_a_graph_has_a_contract_of_its_own() -> None:
    assert find_area("graph").has_own_contract("901")
    assert not find_area("vision").has_own_contract("900")
    assert not find_area("diagnostics").has_own_contract("001")
    with pytest.raises(FailedPrecondition, match="graph/901 has a contract of its own; give its inputs and outputs"):
        find_network("graph", "901")


def test_contracts() -> None:
    (image,) = find_network("vision", "002").inputs
    (audio,) = find_network("hearing", "002").inputs
    assert (image.name, image.datatype, image.shape, image.optional) == ("image", "UINT8", (-1, -1, -1), False)
    assert (audio.name, audio.datatype, audio.shape, audio.optional) == ("audio", "INT16", (-1, -1), False)
    assert [spec.name for spec in find_network("vision", "001").outputs] == ["features", "probabilities"]
    assert all(spec.optional for spec in find_network("association", "001").inputs)
    assert all(spec.optional for spec in find_network("diagnostics", "002").inputs)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match="there are vision, hearing, association, diagnostics, graph"):
        find_area("smell")
    with pytest.raises(NotFound, match="area 'vision' has no network '009'; it has 001 LeNet3, 002 LeNet5"):
        find_network("vision", "009")


def test_the_library_needs_no_torch() -> None:
    program = (
        "import sys, encephalon.library.areas, encephalon.library.avmnist, encephalon.library.sample;"
        "sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
