"""Areas and networks that installed packages bring, through the entry-point group `encephalon.areas`.

A distribution names an `Area` in its metadata; the entry point has the area's name:

    [project.entry-points."encephalon.areas"]
    touch = "encephalon_touch:TOUCH"       # an area of its own
    vision = "encephalon_touch:VISION"     # networks for an area that is there

An `Area` of a name that is there adds its networks to it: with the same contract or none, and codes that are not taken.
The module that holds the `Area` is imported by every program that asks for areas, the coordinator and the command line
too, so it must not import torch; what computes is behind `Area.load`, which is imported by a region.

Only what is installed in this Python environment is ever imported. Code is never loaded from the object store: a record
or a brain names an area and a code, and where no installed package has them it does not run. A package that cannot be
imported, or says what cannot be, is logged and left out; who asks for its area or network gets the reason. Two packages
that bring the same thing are both left out, for which one is meant cannot be known.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from encephalon.library.area import ONNX, ONNX_LOAD, OWN, Area

__all__ = ["GROUP", "Extended", "extended"]

LOG = logging.getLogger(__name__)

GROUP = "encephalon.areas"
T = TypeVar("T")

NAME = re.compile(r"[a-z][a-z0-9_]*")
CODE = re.compile(r"[0-9]{3}")
LOAD = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class Extended(NamedTuple):
    areas: Mapping[str, Area]
    broken: Mapping[str, str]
    """Name of an area that is not there to the reason."""


class Addition(NamedTuple):
    """What one entry point brings: an area, or why not."""

    name: str
    package: str
    area: Area | None
    fault: str = ""


def extended(built_in: Sequence[Area]) -> Extended:
    """The built-in areas, with all that installed packages bring."""
    additions = [addition(entry) for entry in installed()]
    areas = {area.name: area for area in built_in}
    broken: dict[str, str] = {}
    for name in dict.fromkeys(addition.name for addition in additions):
        brought = [addition for addition in additions if addition.name == name]
        area, faults = merged(areas.get(name), brought)
        for fault in faults:
            LOG.warning("a package's area is left out", extra={"area": name, "fault": fault})
        if area is None:
            broken[name] = f"area '{name}' cannot be used: {'; '.join(faults)}"
        else:
            areas[name] = area
    return Extended(MappingProxyType({name: with_onnx(area) for name, area in areas.items()}), MappingProxyType(broken))


def installed() -> list[EntryPoint]:
    """In an order that does not depend on the order of folders."""
    entries = importlib.metadata.entry_points(group=GROUP)
    return sorted(entries, key=lambda entry: (entry.name, package_of(entry), entry.value))


def package_of(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown package"


def addition(entry: EntryPoint) -> Addition:
    package = package_of(entry)
    said = f"entry point '{entry.name} = {entry.value}' of package {package}"
    try:
        area = entry.load()
        fault = misfit(area, entry.name)
    except (Exception, SystemExit) as error:  # whatever a package raises must not stop the other areas
        LOG.warning("a package's area cannot be imported", exc_info=error, extra={"entry_point": entry.name})
        return Addition(entry.name, package, None, f"{said} cannot be loaded: {type(error).__name__}: {error}")
    if fault:
        return Addition(entry.name, package, None, f"{said} {fault}")
    return Addition(entry.name, package, dataclasses.replace(area, package=package))


def misfit(area: object, name: str) -> str:
    """What is wrong with what an entry point of this name loads; empty when nothing is."""
    if not isinstance(area, Area):
        return f"loads {type(area).__name__}, expected an encephalon.library.areas.Area"
    if area.name != name or not NAME.fullmatch(name):
        return f"loads area '{area.name}'; the entry point must have its name: a small letter, then letters, digits, _"
    codes: list[object] = list(area.networks)  # whatever a package has put there
    if bad := [code for code in codes if not isinstance(code, str) or not CODE.fullmatch(code)]:
        return f"has code {bad[0]!r}, expected three digits in quotes"
    if not LOAD.fullmatch(area.load):
        return f"has load '{area.load}', expected package.module:function"
    if unknown := sorted(area.contracts.keys() - area.networks.keys()):
        return f"gives a contract for {unknown[0]}, which is none of its networks"
    contracts = [*area.contracts.values(), *([area.contract] if area.contract is not None else [])]
    if not all(contract.inputs and contract.outputs for contract in contracts):
        return "has a contract without inputs or outputs"
    return ""


def merged(area: Area | None, brought: Sequence[Addition]) -> tuple[Area | None, list[str]]:
    """An area (None: a new one) with what packages bring for it, and what is wrong with the rest."""
    faults = [one.fault for one in brought if one.fault]
    sound = [one.area for one in brought if one.area is not None]
    if area is None:
        if not sound:
            return None, faults
        area = dataclasses.replace(sound[0], networks={}, contracts={})
        if any(one.contract != sound[0].contract for one in sound):
            return None, [*faults, f"{packages(sound)} bring it with different contracts; uninstall one of them"]
    owners: dict[str, list[Area]] = {}
    for one in sound:
        for code in one.networks:
            owners.setdefault(code, []).append(one)
    networks, contracts = dict(area.networks), dict(area.contracts)
    loads, origins = dict(area.loads), dict(area.packages)
    for code, (first, *others) in owners.items():
        if fault := refused(area, code, first, others):
            faults.append(fault)
            continue
        networks[code], loads[code], origins[code] = first.networks[code], first.load, first.package
        if code in first.contracts:
            contracts[code] = first.contracts[code]
    result = dataclasses.replace(
        area,
        networks=frozen(networks),
        contracts=frozen(contracts),
        loads=frozen(loads),
        packages=frozen(origins),
        faults=tuple(faults),
    )
    return result, faults


def frozen(items: Mapping[str, T]) -> Mapping[str, T]:
    """In the order of the codes."""
    return MappingProxyType(dict(sorted(items.items())))


def refused(area: Area, code: str, first: Area, others: Sequence[Area]) -> str:
    """Why this network cannot be added; empty when it can."""
    name = f"{area.name}/{code}"
    if others:
        return f"{packages([first, *others])} both bring network {name}; uninstall one of them"
    if code in area.networks or (code == ONNX and area.contract is not None):
        owner = area.packages.get(code, area.package) if code in area.networks else OWN
        return f"package {first.package} brings network {name}, which package {owner} has already; give it another code"
    if first.contract is not None and first.contract != area.contract:
        return (
            f"package {first.package} brings network {name} with another contract than that of package {area.package}"
        )
    if area.contract is not None and code in first.contracts:
        return f"package {first.package} gives network {name} a contract of its own; those of this area share one"
    return ""


def packages(areas: Sequence[Area]) -> str:
    return " and ".join(dict.fromkeys(f"package {area.package}" for area in areas))


def with_onnx(area: Area) -> Area:
    """Any graph that fulfils the contract may run in an area."""
    if area.contract is None or ONNX in area.networks:
        return area
    return dataclasses.replace(
        area,
        networks=MappingProxyType({**area.networks, ONNX: "ONNX graph"}),
        loads=MappingProxyType({**area.loads, ONNX: ONNX_LOAD}),
        packages=MappingProxyType({**area.packages, ONNX: OWN}),
    )
