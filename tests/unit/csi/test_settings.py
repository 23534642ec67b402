"""Settings that the interface forbids are refused by name; what it allows is announced."""

from __future__ import annotations

from typing import Any

import pytest

from csi_driver.requests import topology
from csi_driver.settings import Settings
from runtime_core.errors import InvalidArgument


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"driver_name": ""}, "driver-name"),
        ({"driver_name": "x" * 64}, "driver-name"),
        ({"driver_name": "under_score"}, "driver-name"),
        ({"node_id": "n" * 257}, "node-id"),
        ({"max_volumes": -1}, "max-volumes"),
        ({"health_port": 65536}, "health-port"),
        ({"topology": {"a/b/c": "x"}}, "topology"),
        ({"topology": {"-zone": "x"}}, "topology"),
        ({"topology": {"zone": ""}}, "topology: zone"),
        ({"topology": {"zone": "x" * 64}}, "topology: zone"),
        ({"topology": {"zone": "a b"}}, "topology: zone"),
    ],
)
def test_a_wrong_setting_is_told_by_name(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        Settings(**settings)


def test_labels_as_clusters_have_them_are_taken() -> None:
    Settings(topology={"topology.kubernetes.io/zone": "eu-1a", "rack": "R_7.b"}, driver_name="x" * 63)


@pytest.mark.parametrize("node", ["node-a", "n" * 63, "10.0.0.1", "A_b.c"])
def test_a_node_id_that_can_be_a_label_is_one(node: str) -> None:
    assert topology.segment_value(node) == node


@pytest.mark.parametrize("node", ["n" * 64, "node/a", "-x", "ü", ""])
def test_any_other_has_one_that_stands_for_it(node: str) -> None:
    label = topology.segment_value(node)
    assert (
        label != node
        and label == topology.segment_value(node) == topology.segment_value(label)
        and label != topology.segment_value("other" + node)
    )
