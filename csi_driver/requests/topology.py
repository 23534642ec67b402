"""CSI Topology: volumes and snapshots are accessible on this node only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from csi_driver.api.v1 import csi_pb2 as csi
from runtime_core.errors import InvalidArgument, ResourceExhausted

#: CSI, Topology: a value, as Kubernetes has them for labels
_VALUE = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")


def segment_value(text: str) -> str:
    """`text` where it can be a segment's value; else one that stands for it, always the same."""
    return text if _VALUE.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:32]


def check_requirement(requirement: csi.TopologyRequirement, node_topology: Mapping[str, str]) -> None:
    """ResourceExhausted when the requirement does not allow this node."""
    if not requirement.requisite and not requirement.preferred:
        raise InvalidArgument("accessibility_requirements: has neither requisite nor preferred")
    if requirement.requisite and not any(includes_this_node(segments, node_topology) for segments in requirement.requisite):
        raise ResourceExhausted("accessibility_requirements: none of the requisite topologies is this node's")


def allows_only_this_node(requirement: csi.TopologyRequirement, node_topology: Mapping[str, str]) -> bool:
    """Whether every topology that the requirement allows is this node's."""
    return [dict(segments.segments) for segments in requirement.requisite] == [dict(node_topology)]


def includes_this_node(segments: csi.Topology, node_topology: Mapping[str, str]) -> bool:
    """Whether this node is in the topology; one without segments includes every node."""
    return all(node_topology.get(key) == value for key, value in segments.segments.items())


def accessible_topology(node_topology: Mapping[str, str]) -> list[csi.Topology]:
    """The topology of everything that is on this node, for a response."""
    return [csi.Topology(segments=node_topology)]
