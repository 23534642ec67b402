"""Volumes that exist: deleted, attached, listed, validated, grown, changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records.schema import Staging, Target
from runtime_core.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    TrivetError,
    Unavailable,
)
from tests.support.csi_daemon import MIB, NODE, Mode, capability, create_request
from tests.unit.csi.conftest import Driver

_FOREIGN = ["..", "../x", "vol-", "vol-" + "A" * 32, "vol-" + "0" * 31, "a\nb", "x" * 300, "pv/1", "\x00"]


@pytest.fixture
def volume_id(driver: Driver) -> str:
    return str(driver.CreateVolume(create_request("v", 2 * MIB)).volume.volume_id)


def _delete(driver: Driver, volume_id: str) -> None:
    driver.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume_id))


def _publish(driver: Driver, volume_id: str, node: str = NODE, **more: Any) -> None:
    asked = more.pop("capability", capability())
    driver.ControllerPublishVolume(
        csi.ControllerPublishVolumeRequest(volume_id=volume_id, node_id=node, volume_capability=asked, **more)
    )


def _unpublish(driver: Driver, volume_id: str, node: str = NODE) -> None:
    driver.ControllerUnpublishVolume(csi.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=node))


def _expand(driver: Driver, volume_id: str, required: int = 0, limit: int = 0, **more: Any) -> Any:
    wanted = csi.CapacityRange(required_bytes=required, limit_bytes=limit)
    return driver.ControllerExpandVolume(csi.ControllerExpandVolumeRequest(volume_id=volume_id, capacity_range=wanted, **more))


# ---- ids


@pytest.mark.parametrize("foreign", [*_FOREIGN, "vol-" + "0" * 32])
def test_an_id_that_is_not_ours_is_gone_already_and_in_use_nowhere(driver: Driver, volume_id: str, foreign: str) -> None:
    _delete(driver, foreign)
    _unpublish(driver, foreign)
    driver.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=foreign))
    with pytest.raises(NotFound):
        _publish(driver, foreign)
    with pytest.raises(NotFound):
        _expand(driver, foreign, MIB)
    for rpc, request in _BY_ID.items():
        with pytest.raises(NotFound):
            getattr(driver, rpc)(request(volume_id=foreign))
    assert driver.backend.volumes() == {volume_id}


_BY_ID: dict[str, Callable[..., Any]] = {
    "ControllerGetVolume": csi.ControllerGetVolumeRequest,
    "ControllerGetVolumeHealth": csi.ControllerGetVolumeHealthRequest,
    "ControllerModifyVolume": lambda **f: csi.ControllerModifyVolumeRequest(mutable_parameters={"iops": "1"}, **f),
    "ValidateVolumeCapabilities": lambda **f: csi.ValidateVolumeCapabilitiesRequest(volume_capabilities=[capability()], **f),
}  # fmt: skip


@pytest.mark.parametrize(
    ("rpc", "request_"),
    [
        ("DeleteVolume", csi.DeleteVolumeRequest()),
        ("ControllerPublishVolume", csi.ControllerPublishVolumeRequest(node_id=NODE, volume_capability=capability())),
        ("ControllerPublishVolume", csi.ControllerPublishVolumeRequest(volume_id="v", volume_capability=capability())),
        ("ControllerPublishVolume", csi.ControllerPublishVolumeRequest(volume_id="v", node_id=NODE)),
        ("ControllerUnpublishVolume", csi.ControllerUnpublishVolumeRequest(node_id=NODE)),
        ("ValidateVolumeCapabilities", csi.ValidateVolumeCapabilitiesRequest(volume_capabilities=[capability()])),
        ("ValidateVolumeCapabilities", csi.ValidateVolumeCapabilitiesRequest(volume_id="v")),
        ("ControllerGetVolume", csi.ControllerGetVolumeRequest()),
        ("ControllerGetVolumeHealth", csi.ControllerGetVolumeHealthRequest()),
        ("ControllerModifyVolume", csi.ControllerModifyVolumeRequest(mutable_parameters={"iops": "1"})),
        ("ControllerExpandVolume", csi.ControllerExpandVolumeRequest(capacity_range=csi.CapacityRange(required_bytes=1))),
        ("ControllerExpandVolume", csi.ControllerExpandVolumeRequest(volume_id="v")),
        ("CreateSnapshot", csi.CreateSnapshotRequest(name="s")),
        ("CreateSnapshot", csi.CreateSnapshotRequest(source_volume_id="v")),
        ("DeleteSnapshot", csi.DeleteSnapshotRequest()),
        ("GetSnapshot", csi.GetSnapshotRequest()),
        ("CreateVolumeGroupSnapshot", csi.CreateVolumeGroupSnapshotRequest(source_volume_ids=["v"])),
        ("CreateVolumeGroupSnapshot", csi.CreateVolumeGroupSnapshotRequest(name="g")),
        ("CreateVolumeGroupSnapshot", csi.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=["v", ""])),
        ("DeleteVolumeGroupSnapshot", csi.DeleteVolumeGroupSnapshotRequest(snapshot_ids=["s"])),
        ("GetVolumeGroupSnapshot", csi.GetVolumeGroupSnapshotRequest(snapshot_ids=["s"])),
    ],
)
def test_every_required_field_is_required(driver: Driver, rpc: str, request_: Any) -> None:
    with pytest.raises(InvalidArgument, match="is missing"):
        getattr(driver, rpc)(request_)


# ---- delete


@pytest.mark.parametrize(
    "use",
    [
        {"attached": {NODE: False}},
        {"staging": Staging(path="/kubelet/staging")},
        {"targets": {"/kubelet/target": Target()}},
    ],
)
def test_a_volume_in_use_is_not_deleted(driver: Driver, volume_id: str, use: dict[str, Any]) -> None:
    driver.service.records.volumes.update(volume_id, lambda record: replace(record, **use))
    with pytest.raises(FailedPrecondition):
        _delete(driver, volume_id)
    assert driver.backend.volumes() == {volume_id}


def test_a_deleted_volume_is_gone_and_its_name_free(driver: Driver, volume_id: str) -> None:
    _delete(driver, volume_id)
    _delete(driver, volume_id)
    assert driver.backend.volumes() == set() and driver.service.ledger.held() == []
    assert driver.CreateVolume(create_request("v", MIB)).volume.volume_id != volume_id


def test_a_failed_delete_is_finished_by_the_next_one(make_driver: Callable[..., Driver], tmp_path: Any) -> None:
    """In between the volume is there for nobody."""
    broken = tmp_path / "broken"
    driver = make_driver({"broken": str(broken)})
    volume_id = driver.CreateVolume(create_request("v")).volume.volume_id
    broken.touch()
    with pytest.raises(Unavailable):
        _delete(driver, volume_id)
    with pytest.raises(NotFound):
        driver.ControllerGetVolume(csi.ControllerGetVolumeRequest(volume_id=volume_id))
    broken.unlink()
    _delete(driver, volume_id)
    assert driver.backend.volumes() == set()


def test_a_second_call_on_one_volume_is_aborted_at_once(driver: Driver, volume_id: str) -> None:
    with driver.service.locks.hold(volume_id):
        for call in (
            lambda: _delete(driver, volume_id),
            lambda: _publish(driver, volume_id),
            lambda: _expand(driver, volume_id, 4 * MIB),
            lambda: driver.CreateSnapshot(csi.CreateSnapshotRequest(name="s", source_volume_id=volume_id)),
        ):
            with pytest.raises(Aborted, match=volume_id):
                call()
    with driver.service.locks.hold("volume named w"), pytest.raises(Aborted):
        driver.CreateVolume(create_request("w"))


# ---- publish


def test_attaching_is_idempotent_and_lists_its_node(driver: Driver, volume_id: str) -> None:
    for _ in range(2):
        _publish(driver, volume_id)
    (entry,) = driver.ListVolumes(csi.ListVolumesRequest()).entries
    assert list(entry.status.published_node_ids) == [NODE]
    found = driver.ControllerGetVolume(csi.ControllerGetVolumeRequest(volume_id=volume_id))
    assert list(found.status.published_node_ids) == [NODE] and found.volume.volume_id == volume_id
    for _ in range(2):
        _unpublish(driver, volume_id)
    (entry,) = driver.ListVolumes(csi.ListVolumesRequest()).entries
    assert list(entry.status.published_node_ids) == []


def test_detaching_names_a_node_or_means_all(driver: Driver, volume_id: str) -> None:
    _publish(driver, volume_id)
    _unpublish(driver, volume_id, "node-b")
    assert driver.service.records.volumes.get(volume_id).attached == {NODE: False}
    _unpublish(driver, volume_id, "")
    assert driver.service.records.volumes.get(volume_id).attached == {}


@pytest.mark.parametrize(
    ("before", "after", "clash"),
    [
        ({}, {"readonly": True}, True),
        ({"readonly": True}, {}, True),
        ({"readonly": True}, {"readonly": True}, False),
        ({"readonly": True}, {"capability": capability(mode=Mode.MULTI_NODE_READER_ONLY)}, False),
        ({}, {"capability": capability(mode=Mode.SINGLE_NODE_READER_ONLY)}, True),
        ({}, {"capability": capability(mode=Mode.SINGLE_NODE_MULTI_WRITER)}, False),
    ],
)
def test_read_only_and_read_write_exclude_each_other(
    driver: Driver, volume_id: str, before: dict[str, Any], after: dict[str, Any], clash: bool
) -> None:
    _publish(driver, volume_id, **before)
    if clash:
        with pytest.raises(AlreadyExists, match="readonly"):
            _publish(driver, volume_id, **after)
    else:
        _publish(driver, volume_id, **after)


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"node": "node-b"}, NotFound),
        ({"node": "../" + NODE}, NotFound),
        ({"capability": capability("block")}, InvalidArgument),
        ({"capability": capability(fs_type="xfs")}, InvalidArgument),
        ({"capability": capability(mode=Mode.UNKNOWN)}, InvalidArgument),
    ],
)
def test_a_wrong_attachment_is_refused(driver: Driver, volume_id: str, more: dict[str, Any], kind: type[TrivetError]) -> None:
    with pytest.raises(kind):
        _publish(driver, volume_id, **more)
    assert driver.service.records.volumes.get(volume_id).attached == {}


def test_a_node_takes_so_many_volumes_and_not_more(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(max_volumes=2)
    made = [driver.CreateVolume(create_request(name)).volume.volume_id for name in "abc"]
    _publish(driver, made[0])
    _publish(driver, made[1])
    with pytest.raises(ResourceExhausted, match="2 volumes"):
        _publish(driver, made[2])
    _publish(driver, made[0])
    _unpublish(driver, made[0])
    _publish(driver, made[2])


# ---- validate


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, ""),
        ({"volume_capabilities": [capability(mode=mode) for mode in range(1, 8)]}, ""),
        ({"parameters": {"csi.storage.k8s.io/pvc/name": "x"}}, ""),
        ({"volume_context": {"storage.kubernetes.io/csiProvisionerIdentity": "1-x"}}, ""),
        ({"volume_capabilities": [capability("block")]}, "mount volume, not a block volume"),
        ({"volume_capabilities": [capability(), capability("block")]}, "both a block device"),
        ({"volume_capabilities": [capability(fs_type="xfs")]}, "ext4, not xfs"),
        ({"volume_capabilities": [capability(fs_type="zfs")]}, "zfs"),
        ({"parameters": {"allocation": "full"}}, "parameters: the volume has others"),
        ({"parameters": {"other": "1"}}, "'other' is not known"),
        ({"mutable_parameters": {"iops": "9"}}, "mutable_parameters: the volume has others"),
        ({"volume_context": {"path": "/etc"}}, "volume_context"),
    ],
)
def test_confirmed_is_all_that_was_asked_for_or_nothing(driver: Driver, volume_id: str, more: dict[str, Any], says: str) -> None:
    request = csi.ValidateVolumeCapabilitiesRequest(
        volume_id=volume_id, **{"volume_capabilities": [capability()], **more}
    )  # fmt: skip
    answer = driver.ValidateVolumeCapabilities(request)
    assert says in answer.message and bool(says) == bool(answer.message)
    assert answer.HasField("confirmed") == (not says)
    if not says:
        for field in ("volume_capabilities", "parameters", "volume_context", "mutable_parameters"):
            assert getattr(answer.confirmed, field) == getattr(request, field)


# ---- expand


def test_growing_is_recorded_and_idempotent(driver: Driver, volume_id: str) -> None:
    for _ in range(2):
        answer = _expand(driver, volume_id, 4 * MIB - 5)
        assert (answer.capacity_bytes, answer.node_expansion_required) == (4 * MIB, True)
    assert (driver.root / "memory/volumes" / volume_id).stat().st_size == 4 * MIB
    record = driver.service.records.volumes.get(volume_id)
    assert (record.size, record.growing_to) == (4 * MIB, 0)


def test_a_block_volume_needs_no_node_to_grow(driver: Driver) -> None:
    made = driver.CreateVolume(create_request("b", volume_capabilities=[capability("block")])).volume
    assert not _expand(driver, made.volume_id, 4 * MIB, volume_capability=capability("block")).node_expansion_required


def test_what_is_large_enough_does_not_shrink(driver: Driver, volume_id: str) -> None:
    assert _expand(driver, volume_id, MIB).capacity_bytes == 2 * MIB
    assert _expand(driver, volume_id, MIB, 2 * MIB).capacity_bytes == 2 * MIB
    assert _expand(driver, volume_id, 0, 8 * MIB).capacity_bytes == 2 * MIB


@pytest.mark.parametrize(
    ("required", "limit", "more", "kind"),
    [
        (0, 0, {}, InvalidArgument),
        (-1, 0, {}, InvalidArgument),
        (4 * MIB, -1, {}, InvalidArgument),
        (4 * MIB, 3 * MIB, {}, OutOfRange),
        (0, MIB, {}, OutOfRange),
        (2 * MIB + 1, 2 * MIB + 2, {}, OutOfRange),
        ((1 << 40) + 1, 0, {}, OutOfRange),
        (4 * MIB, 0, {"volume_capability": capability("block")}, InvalidArgument),
    ],
)
def test_a_size_that_cannot_be_is_refused(
    driver: Driver, volume_id: str, required: int, limit: int, more: dict[str, Any], kind: type[TrivetError]
) -> None:
    with pytest.raises(kind):
        _expand(driver, volume_id, required, limit, **more)
    assert driver.service.records.volumes.get(volume_id).size == 2 * MIB


def test_an_offline_back_end_grows_only_what_nobody_uses(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver({"expansion": "offline"})
    volume_id = driver.CreateVolume(create_request("v")).volume.volume_id
    _publish(driver, volume_id)
    with pytest.raises(FailedPrecondition, match="offline"):
        _expand(driver, volume_id, 4 * MIB)
    _unpublish(driver, volume_id)
    assert _expand(driver, volume_id, 4 * MIB).capacity_bytes == 4 * MIB


def test_a_back_end_that_cannot_grow_it_leaves_the_size(make_driver: Callable[..., Driver], tmp_path: Any) -> None:
    driver = make_driver()
    volume_id = driver.CreateVolume(create_request("v")).volume.volume_id

    def full(volume: Any) -> bool:
        raise ResourceExhausted("no space")

    driver.backend.expand = full  # type: ignore[method-assign]
    with pytest.raises(ResourceExhausted):
        _expand(driver, volume_id, 4 * MIB)
    record = driver.service.records.volumes.get(volume_id)
    assert (record.size, record.growing_to) == (MIB, 0)


# ---- modify


def test_naming_no_parameter_changes_none(driver: Driver, volume_id: str) -> None:
    """csi-sanity asks so, and what a map without a row asks for is done already."""
    before = driver.service.records.volumes.get(volume_id)
    driver.ControllerModifyVolume(csi.ControllerModifyVolumeRequest(volume_id=volume_id))
    assert driver.service.records.volumes.get(volume_id) == before and driver.backend.applied == {}


def test_only_what_is_named_changes(driver: Driver) -> None:
    request = create_request("v", parameters={"allocation": "full"}, mutable_parameters={"iops": "1"})
    volume_id = driver.CreateVolume(request).volume.volume_id
    change = csi.ControllerModifyVolumeRequest(volume_id=volume_id, mutable_parameters={"iops": "5"})
    for _ in range(2):
        driver.ControllerModifyVolume(change)
    assert driver.backend.applied[volume_id] == {"allocation": "full", "iops": "5"}
    assert driver.service.records.volumes.get(volume_id).mutable_parameters == {"iops": "5"}


@pytest.mark.parametrize("wrong", [{"allocation": "sparse"}, {"iops": "x"}, {"iops": "5", "other": "1"}])
def test_a_wrong_parameter_changes_nothing(driver: Driver, volume_id: str, wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        driver.ControllerModifyVolume(csi.ControllerModifyVolumeRequest(volume_id=volume_id, mutable_parameters=wrong))
    assert driver.backend.applied == {} and driver.service.records.volumes.get(volume_id).mutable_parameters == {}


@pytest.mark.parametrize("error", [ResourceExhausted("no room"), OSError(5, "Input/output error")])
def test_a_change_that_fails_half_way_is_undone(driver: Driver, error: Exception) -> None:
    volume_id = driver.CreateVolume(create_request("v", mutable_parameters={"iops": "1"})).volume.volume_id
    modify = driver.backend.modify

    def fail(volume: Any) -> None:
        modify(volume)
        if volume.parameters["iops"] == "5":
            raise error

    driver.backend.modify = fail  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        driver.ControllerModifyVolume(csi.ControllerModifyVolumeRequest(volume_id=volume_id, mutable_parameters={"iops": "5"}))
    record = driver.service.records.volumes.get(volume_id)
    assert driver.backend.applied[volume_id] == {"iops": "1"} == record.mutable_parameters and record.changing_to is None


# ---- health and capacity


def test_health_tells_a_missing_image_and_the_condition_of_1_12_too(driver: Driver, volume_id: str) -> None:
    other = driver.CreateVolume(create_request("w")).volume.volume_id
    assert driver.ControllerListVolumeHealth(csi.ControllerListVolumeHealthRequest()).entries == []
    (driver.root / "memory/volumes" / volume_id).unlink()
    (entry,) = driver.ControllerListVolumeHealth(csi.ControllerListVolumeHealthRequest()).entries
    (status,) = entry.health_statuses
    assert (entry.volume_id, status.status, status.reason) == (volume_id, csi.DATA_LOSS, "ImageMissing")
    healthy = driver.ControllerGetVolumeHealth(csi.ControllerGetVolumeHealthRequest(volume_id=other))
    assert healthy.volume_health == csi.VolumeHealth(volume_id=other)
    conditions = {
        item.volume.volume_id: item.status.volume_condition.abnormal
        for item in driver.ListVolumes(csi.ListVolumesRequest()).entries
    }
    assert conditions == {volume_id: True, other: False}
    found = driver.ControllerGetVolume(csi.ControllerGetVolumeRequest(volume_id=volume_id))
    assert found.status.volume_condition.abnormal and "gone" in found.status.volume_condition.message


def _capacity(driver: Driver, **more: Any) -> int:
    return int(driver.GetCapacity(csi.GetCapacityRequest(**more)).available_capacity)


def test_capacity_is_that_of_the_back_end_here_and_for_what_it_can_make(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver({"capacity": 64 * MIB, "without": ["block"]})
    driver.CreateVolume(create_request("v", 4 * MIB))
    here, elsewhere = {"topology.hostpath.csi.trivet.dev/node": NODE}, {"topology.hostpath.csi.trivet.dev/node": "b"}
    assert _capacity(driver) == 60 * MIB
    assert _capacity(driver, accessible_topology=csi.Topology(segments=here)) == 60 * MIB
    assert _capacity(driver, accessible_topology=csi.Topology(segments=elsewhere)) == 0
    assert _capacity(driver, volume_capabilities=[capability()]) == 60 * MIB
    assert _capacity(driver, volume_capabilities=[capability("block")]) == 0
    with pytest.raises(InvalidArgument, match="'pool'"):
        _capacity(driver, parameters={"pool": "fast"})
    answer = driver.GetCapacity(csi.GetCapacityRequest())
    assert (answer.minimum_volume_size.value, answer.maximum_volume_size.value) == (MIB, 64 * MIB)


# ---- lists


@pytest.mark.parametrize("token", ["-1", "0", "1", "vol-" + "0" * 32, "garbage", "../x"])
@pytest.mark.parametrize("rpc", ["ListVolumes", "ListSnapshots", "ControllerListVolumeHealth"])
def test_a_token_that_was_not_given_is_aborted(driver: Driver, volume_id: str, rpc: str, token: str) -> None:
    request = getattr(csi, f"{rpc}Request")(starting_token=token)
    with pytest.raises(Aborted, match="starting_token"):
        getattr(driver, rpc)(request)
    with pytest.raises(InvalidArgument, match="max_entries"):
        getattr(driver, rpc)(getattr(csi, f"{rpc}Request")(max_entries=-1))


def _pages(driver: Driver, rpc: str, size: int) -> list[list[str]]:
    pages, token = [], ""
    while True:
        answer = getattr(driver, rpc)(getattr(csi, f"{rpc}Request")(max_entries=size, starting_token=token))
        pages.append([e.volume.volume_id if rpc == "ListVolumes" else e.snapshot.snapshot_id for e in answer.entries])
        token = answer.next_token
        if not token:
            return pages


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 100])
def test_pages_hold_everything_once(driver: Driver, size: int) -> None:
    volumes = [driver.CreateVolume(create_request(f"v{n}")).volume.volume_id for n in range(6)]
    source = volumes[0]
    requests = [csi.CreateSnapshotRequest(name=f"s{n}", source_volume_id=source) for n in range(6)]
    snapshots = [driver.CreateSnapshot(request).snapshot.snapshot_id for request in requests]
    for rpc, all_of_them in (("ListVolumes", volumes), ("ListSnapshots", snapshots)):
        pages = _pages(driver, rpc, size)
        assert [item for page in pages for item in page] == all_of_them
        assert len(pages) == -(-6 // size)


def test_a_page_goes_on_though_its_last_entry_is_gone_and_shows_what_came(driver: Driver) -> None:
    made = [driver.CreateVolume(create_request(f"v{n}")).volume.volume_id for n in range(4)]
    first = driver.ListVolumes(csi.ListVolumesRequest(max_entries=2))
    _delete(driver, made[1])
    new = driver.CreateVolume(create_request("new")).volume.volume_id
    rest = driver.ListVolumes(csi.ListVolumesRequest(starting_token=first.next_token))
    assert [entry.volume.volume_id for entry in rest.entries] == [*made[2:], new]
