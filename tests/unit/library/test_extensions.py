"""Packages that bring areas, good ones and bad ones; each is a folder as an installer leaves it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from encephalon.areas import load_network
from encephalon.core.errors import FailedPrecondition, Internal, InvalidManifest, NotFound
from encephalon.library import areas
from encephalon.library.areas import BUILT_IN, _Areas
from encephalon.library.brains import parse_manifest
from encephalon.library.extensions import GROUP, extended
from tests.regions import manifest

HEAD = """
from encephalon.core.contract import Contract, TensorSpec
from encephalon.library.areas import Area
X, Y = TensorSpec("x", "FP32", (-1, -1)), TensorSpec("y", "FP32", (-1, -1))
ONE = Contract((X,), (Y,))
"""
SMELL = """AREA = Area("smell", "Smells.", ONE, {{"{code}": "{title}"}}, "{module}:load")"""
MORE = """AREA = Area("vision", "", None, {{"{code}": "{title}"}}, "{module}:load")"""


class Packages:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, package: str, entry: str, text: str) -> None:
        """A distribution with one module, named as it is but for dashes."""
        module = package.replace("-", "_")
        information = self.folder / f"{module}-1.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (information / "entry_points.txt").write_text(f"[{GROUP}]\n{entry} = {module}:AREA\n")
        (self.folder / f"{module}.py").write_text(HEAD + text)

    def smell(self, package: str, code: str = "001", text: str = SMELL) -> None:
        self.add(package, "smell", text.format(code=code, title=package, module=package.replace("-", "_")))

    def vision(self, package: str, code: str) -> None:
        self.add(package, "vision", MORE.format(code=code, title=package, module=package.replace("-", "_")))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Packages(tmp_path)


def test_an_area_of_its_own_comes_after_the_built_in_ones(packages: Packages) -> None:
    packages.smell("enc-nose-a")
    found = extended(BUILT_IN)
    assert list(found.areas) == [*(area.name for area in BUILT_IN), "smell"]
    smell = found.areas["smell"]
    assert dict(smell.networks) == {"001": "enc-nose-a", "900": "ONNX graph"}
    assert (smell.package, smell.package_of("001"), smell.package_of("900")) == (
        "enc-nose-a",
        *["enc-nose-a"],
        "encephalon",
    )
    assert smell.load_of("001") == "enc_nose_a:load"
    assert smell.faults == ()


def test_networks_for_an_area_that_is_there(packages: Packages) -> None:
    packages.vision("enc-eye-b", "101")
    vision = extended(BUILT_IN).areas["vision"]
    assert list(vision.networks) == ["001", "002", "003", "004", "101", "900"]
    assert vision.contract_of("101") == vision.contract
    assert (vision.package_of("101"), vision.package_of("002")) == ("enc-eye-b", "encephalon")
    assert (vision.load_of("101"), vision.load_of("002")) == ("enc_eye_b:load", "encephalon.areas.vision:load")


def test_two_packages_may_share_an_area(packages: Packages) -> None:
    packages.smell("enc-nose-c", "001")
    packages.smell("enc-nose-d", "002")
    assert list(extended(BUILT_IN).areas["smell"].networks) == ["001", "002", "900"]


@pytest.mark.parametrize("code", ["002", "900"])
def test_a_code_that_is_taken_is_refused(packages: Packages, caplog: pytest.LogCaptureFixture, code: str) -> None:
    packages.vision(f"enc-taken-{code}", code)
    vision = extended(BUILT_IN).areas["vision"]
    says = f"package enc-taken-{code} brings network vision/{code}, which package encephalon has already"
    assert says in vision.faults[0]
    assert says in str(caplog.records[0].__dict__["fault"])
    assert vision.package_of(code) == "encephalon"


def test_what_two_packages_bring_is_in_neither(packages: Packages) -> None:
    packages.vision("enc-eye-e", "101")
    packages.vision("enc-eye-f", "101")
    vision = extended(BUILT_IN).areas["vision"]
    with pytest.raises(
        FailedPrecondition, match="package enc-eye-e and package enc-eye-f both bring network vision/101"
    ):
        vision.contract_of("101")
    assert vision.contract_of("002") == vision.contract


def test_a_contract_may_be_made_of_lists(packages: Packages) -> None:
    packages.smell("enc-nose-n", "001", SMELL.replace("ONE", "Contract([X], [Y])"))
    packages.smell("enc-nose-o", "002", SMELL.replace("ONE", "Contract([X], [Y])"))
    assert list(extended(BUILT_IN).areas["smell"].networks) == ["001", "002", "900"]


def test_an_area_with_two_contracts_is_in_neither(packages: Packages) -> None:
    packages.smell("enc-nose-g")
    packages.smell("enc-nose-h", "002", SMELL.replace("ONE", "Contract((X,), (X,))"))
    found = extended(BUILT_IN)
    assert "smell" not in found.areas
    assert "package enc-nose-g and package enc-nose-h bring it with different contracts" in found.broken["smell"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("raises", "raise RuntimeError('no licence')", "cannot be loaded: RuntimeError: no licence"),
        ("leaves", "import sys; sys.exit(3)", "cannot be loaded: SystemExit: 3"),
        ("lacks", "import no_such_module_anywhere", "ModuleNotFoundError"),
        ("empty", "", "cannot be loaded: AttributeError"),
        ("number", "AREA = 7", "loads int, expected an encephalon.library.areas.Area"),
        ("other", "AREA = Area('taste', '', ONE, {}, 'a:b')", "loads area 'taste'; the entry point must have its name"),
        ("short", "AREA = Area('smell', '', ONE, {'1': 'One'}, 'a:b')", "has code '1', expected three digits"),
        ("bare", "AREA = Area('smell', '', ONE, {101: 'One'}, 'a:b')", "has code 101, expected three digits in quotes"),
        (
            "load",
            "AREA = Area('smell', '', ONE, {'001': 'One'}, 'a.b')",
            "has load 'a.b', expected package.module:func",
        ),
        ("hollow", "AREA = Area('smell', '', Contract((), ()), {}, 'a:b')", "has a contract without inputs or outputs"),
        ("wrong", "AREA = Area('smell', '', ONE, None, 'a:b')", "cannot be loaded: TypeError"),
        (
            "spare",
            "AREA = Area('smell', '', None, {}, 'a:b', {'001': ONE})",
            "a contract for 001, which is none of its",
        ),
    ],
)
def test_a_broken_package_is_named_when_its_area_is_asked_for(
    packages: Packages,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    text: str,
    says: str,
) -> None:
    packages.add(f"enc-broken-{name}", "smell", text)
    monkeypatch.setattr(areas, "AREAS", _Areas())
    assert list(areas.AREAS) == [area.name for area in BUILT_IN]
    with pytest.raises(FailedPrecondition) as caught:
        areas.find_area("smell")
    assert f"entry point 'smell = enc_broken_{name}:AREA' of package enc-broken-{name}" in caught.value.message
    assert says in caught.value.message
    assert any(record.levelno == logging.WARNING for record in caplog.records)
    assert "vision" in areas.AREAS
    assert "smell" not in areas.AREAS


def test_a_network_with_another_contract_is_refused(packages: Packages) -> None:
    packages.add("enc-eye-i", "vision", MORE.format(code="101", title="", module="m").replace("None", "ONE"))
    vision = extended(BUILT_IN).areas["vision"]
    assert "brings network vision/101 with another contract than that of package encephalon" in vision.faults[0]
    with pytest.raises(FailedPrecondition):
        vision.contract_of("101")
    packages.add("enc-diag-j", "diagnostics", "AREA = Area('diagnostics', '', None, {'101': 'D'}, 'm:l', {'101': ONE})")
    assert extended(BUILT_IN).areas["diagnostics"].contract_of("101").inputs[0].name == "x"


def test_a_manifest_says_which_package_is_broken(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> None:
    packages.add("enc-broken-k", "smell", "raise OSError('no nose')")
    monkeypatch.setattr("encephalon.library.brains.networks.AREAS", _Areas())
    with pytest.raises(InvalidManifest, match=r"line 3: region 'echo': area 'smell' cannot .* enc-broken-k .* no nose"):
        parse_manifest(manifest("smell/001"))
    with pytest.raises(InvalidManifest, match="no area 'smel'; known are"):
        parse_manifest(manifest("smel/001"))


def test_a_loader_that_is_not_there_is_named(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> None:
    packages.smell("enc-nose-l")
    monkeypatch.setattr(areas, "AREAS", _Areas())
    with pytest.raises(FailedPrecondition, match="the loader enc_nose_l:load of package enc-nose-l cannot be imported"):
        load_network("smell", "001")
    with pytest.raises(NotFound):
        load_network("smell", "002")
    (packages.folder / "enc_nose_l.py").write_text("1 / 0")
    monkeypatch.delitem(sys.modules, "enc_nose_l")
    with pytest.raises(FailedPrecondition, match=r"the loader enc_nose_l:load .* cannot be imported: division by zero"):
        load_network("smell", "001")


def test_a_loader_of_ours_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "encephalon.areas.vision", None)
    with pytest.raises(FailedPrecondition, match=r"encephalon\.areas\.vision.*; pip install 'encephalon\[region\]'$"):
        load_network("vision", "001")


def test_a_loader_that_fails_is_named(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> None:
    packages.smell("enc-nose-m", text=SMELL + "\ndef load(code, weights, arguments): return 1 / 0\n")
    monkeypatch.setattr(areas, "AREAS", _Areas())
    with pytest.raises(Internal, match="package enc-nose-m failed to load smell/001: ZeroDivisionError: division by z"):
        load_network("smell", "001")
