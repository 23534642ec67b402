"""CSI Topology: volumes and snapshots are where this node is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from csi_driver.api.v1 import csi_pb2 as csi
from runtime_core.errors import InvalidArgument, ResourceExhausted

#: CSI, Topology: a value, as Kubernetes has them for labels
_VALUE = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")


def value(text: str) -> str:
    """`text` where it can be a segment's value; else one that stands for it, always the same."""
    return text if _VALUE.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:32]


def check_requirement(requirement: csi.TopologyRequirement, here: Mapping[str, str]) -> None:
    """ResourceExhausted when something has to be reachable elsewhere only."""
    if not requirement.requisite and not requirement.preferred:
        raise InvalidArgument("accessibility_requirements: has neither requisite nor preferred")
    if requirement.requisite and not any(is_here(place, here) for place in requirement.requisite):
        raise ResourceExhausted("accessibility_requirements: none of the requisite topologies is this node's")


def names_only(requirement: csi.TopologyRequirement, here: Mapping[str, str]) -> bool:
    """Whether this node's is the one place that the requirement allows."""
    return [dict(place.segments) for place in requirement.requisite] == [dict(here)]


def is_here(place: csi.Topology, here: Mapping[str, str]) -> bool:
    """A place without a segment is everywhere."""
    return all(here.get(key) == value for key, value in place.segments.items())


def answer(here: Mapping[str, str]) -> list[csi.Topology]:
    return [csi.Topology(segments=here)]
