"""What is announced is what the back end can do, by table."""

from __future__ import annotations

from typing import Any

import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.capabilities import NEEDS, Capabilities, capabilities
from csi_driver.daemon.server import SERVICES
from runtime_core.interfaces.volume import Features

_ALL: dict[str, Any] = {
    "access": frozenset({"mount", "block"}),
    "file_systems": ("ext4",),
    "snapshots": True,
    "clones": True,
    "groups": True,
    "expansion": "online",
    "metadata": True,
    "mutable_parameters": frozenset({"iops"}),
}
_SNAPSHOTS = {"CREATE_DELETE_SNAPSHOT", "LIST_SNAPSHOTS", "GET_SNAPSHOT"}
_OF_SNAPSHOTS = {"GROUP_CONTROLLER_SERVICE", "SNAPSHOT_METADATA_SERVICE", "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS"}
_ATTACH = {"PUBLISH_UNPUBLISH_VOLUME", "PUBLISH_READONLY", "LIST_VOLUMES_PUBLISHED_NODES"}


def _announced(found: Capabilities) -> set[str]:
    return {*found.plugin, *found.controller, *found.group_controller, *found.node, found.expansion}


def _of(attach: bool = True, **features: Any) -> set[str]:
    return _announced(capabilities(Features(**{**_ALL, **features}), attach=attach))


@pytest.mark.parametrize(
    ("features", "gone"),
    [
        ({"snapshots": False}, _SNAPSHOTS | _OF_SNAPSHOTS | {"CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT"}),
        ({"groups": False}, {"GROUP_CONTROLLER_SERVICE", "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT"}),
        ({"metadata": False}, {"SNAPSHOT_METADATA_SERVICE"}),
        ({"clones": False}, {"CLONE_VOLUME"}),
        ({"expansion": ""}, {"EXPAND_VOLUME", "ONLINE"}),
        ({"mutable_parameters": frozenset()}, {"MODIFY_VOLUME"}),
        ({"access": frozenset({"block"})}, {"VOLUME_MOUNT_GROUP"}),
        ({"attach": False}, _ATTACH),
    ],
)
def test_what_the_back_end_lacks_is_not_announced(features: dict[str, Any], gone: set[str]) -> None:
    """And nothing else goes with it."""
    assert _of() - _of(**features) - {""} == gone


def test_offline_expansion_is_announced_as_such() -> None:
    assert {"OFFLINE", "EXPAND_VOLUME"} <= _of(expansion="offline") and "ONLINE" not in _of(expansion="offline")


def test_the_condition_of_csi_1_12_is_never_announced() -> None:
    assert not any("CONDITION" in name for name in _of())


def test_every_name_is_one_of_the_interface() -> None:
    found = capabilities(Features(**_ALL), attach=True)
    assert set(found.plugin) <= set(csi.PluginCapability.Service.Type.keys())
    assert set(found.controller) == set(csi.ControllerServiceCapability.RPC.Type.keys()) - {"UNKNOWN"}
    assert set(found.group_controller) <= set(csi.GroupControllerServiceCapability.RPC.Type.keys())
    assert set(found.node) == set(csi.NodeServiceCapability.RPC.Type.keys()) - {"UNKNOWN"}


def test_rpcs_that_need_a_capability_exist_and_are_served_only_with_it() -> None:
    rpcs = {rpc for functions in SERVICES.values() for rpc in functions}
    assert set(NEEDS) <= rpcs
    nothing = capabilities(Features(access=frozenset({"mount"}), file_systems=("ext4",)), attach=False)
    everything = capabilities(Features(**_ALL), attach=True)
    assert {rpc for rpc in rpcs if not nothing.serves(rpc)} == set(NEEDS)
    assert all(everything.serves(rpc) for rpc in rpcs)
