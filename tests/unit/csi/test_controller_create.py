"""CreateVolume: every wrong field has its code, a name stands for one volume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records import ids
from runtime_core.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    TrivetError,
    Unavailable,
)
from tests.support.csi_daemon import MIB, NODE, Mode, capability, create_request, from_snapshot, from_volume
from tests.unit.csi.conftest import Driver

_KEY = "topology.hostpath.csi.trivet.dev/node"
_HERE, _ELSEWHERE = csi.Topology(segments={_KEY: NODE}), csi.Topology(segments={_KEY: "node-b"})


def _range(required: int = 0, limit: int = 0) -> dict[str, Any]:
    return {"capacity_range": csi.CapacityRange(required_bytes=required, limit_bytes=limit)}


def _capabilities(*capabilities: csi.VolumeCapability) -> dict[str, Any]:
    return {"volume_capabilities": capabilities}


def _topology(**places: list[csi.Topology]) -> dict[str, Any]:
    return {"accessibility_requirements": csi.TopologyRequirement(**places)}


@pytest.mark.parametrize(
    ("more", "kind", "field"),
    [
        ({"name": ""}, InvalidArgument, "name: is missing"),
        ({"name": "x" * 129}, InvalidArgument, "name: is longer"),
        ({"name": "ü" * 65}, InvalidArgument, "name: is longer"),
        ({"name": "a\x00b"}, InvalidArgument, "U+0000"),
        ({"name": "a\x0bb"}, InvalidArgument, "U+000B"),
        ({"name": "a\x9fb"}, InvalidArgument, "U+009F"),
        (_range(-1), InvalidArgument, "required_bytes: -1 is negative"),
        (_range(MIB, -1), InvalidArgument, "limit_bytes: -1 is negative"),
        (_range(), InvalidArgument, "capacity_range: has neither"),
        (_range(2 * MIB, MIB), OutOfRange, "capacity_range"),
        (_range(1, MIB - 1), OutOfRange, "limit_bytes"),
        (_range((1 << 40) + 1), OutOfRange, "more than the 1099511627776"),
        (_range((1 << 63) - 1), OutOfRange, "capacity_range"),
        (_capabilities(), InvalidArgument, "volume_capabilities: is missing"),
        (_capabilities(capability(), capability("block")), InvalidArgument, "both a block device and a file system"),
        (_capabilities(csi.VolumeCapability(access_mode=Mode(mode=1))), InvalidArgument, "access_type: is missing"),
        (_capabilities(capability(mode=Mode.UNKNOWN)), InvalidArgument, "access_mode: is missing"),
        (_capabilities(capability(mode=99)), InvalidArgument, "access_mode: 99"),
        (_capabilities(capability(fs_type="ntfs")), InvalidArgument, "fs_type: 'ntfs'"),
        (_capabilities(capability(fs_type="ext4"), capability(fs_type="xfs")), InvalidArgument, "ext4 and xfs"),
        (_capabilities(capability(mount_flags=["x" * 4097])), InvalidArgument, "mount_flags"),
        ({"parameters": {"size": "1"}}, InvalidArgument, "parameters: 'size' is not known"),
        ({"parameters": {"allocation": "magic"}}, InvalidArgument, "parameters.allocation"),
        ({"parameters": {"allocation": "x" * 4096}}, InvalidArgument, "larger than 4096"),
        ({"mutable_parameters": {"allocation": "sparse"}}, InvalidArgument, "mutable_parameters: 'allocation'"),
        ({"mutable_parameters": {"iops": "many"}}, InvalidArgument, "mutable_parameters.iops"),
        ({"volume_content_source": csi.VolumeContentSource()}, InvalidArgument, "volume_content_source.type"),
        ({"volume_content_source": from_snapshot("")}, InvalidArgument, "snapshot_id: is missing"),
        ({"volume_content_source": from_snapshot("../../etc")}, NotFound, "../../etc"),
        ({"volume_content_source": from_snapshot(ids.new_snapshot_id())}, NotFound, "snapshot"),
        ({"volume_content_source": from_volume(ids.new_volume_id())}, NotFound, "volume"),
        (_topology(), InvalidArgument, "accessibility_requirements"),
        (_topology(requisite=[_ELSEWHERE]), ResourceExhausted, "requisite"),
        (_topology(requisite=[csi.Topology(segments={"zone": "z1"})]), ResourceExhausted, "requisite"),
    ],
)
def test_a_wrong_field_is_told_by_name_and_nothing_is_made(
    driver: Driver, more: dict[str, Any], kind: type[TrivetError], field: str
) -> None:
    with pytest.raises(kind) as refused:
        driver.CreateVolume(create_request(**{"name": "v", **more}))
    assert field in str(refused.value)
    assert driver.backend.volumes() == set() and driver.service.records.volumes.all() == []
    assert driver.service.ledger.held() == []


@pytest.mark.parametrize(
    "more",
    [
        {"name": "line\nbreak\ttab"},
        _range(MIB, MIB),
        _range(0, 2 * MIB),
        _capabilities(*(capability(mode=mode) for mode in range(1, 8))),
        _capabilities(capability("block", Mode.MULTI_NODE_MULTI_WRITER)),
        _capabilities(capability(), capability(fs_type="xfs")),
        {"parameters": {"csi.storage.k8s.io/pvc/name": "claim", "allocation": "full"}},
        {"mutable_parameters": {"iops": "100"}},
        _topology(requisite=[_ELSEWHERE, _HERE], preferred=[_ELSEWHERE]),
        _topology(preferred=[_ELSEWHERE]),
        _topology(requisite=[csi.Topology()]),
    ],
)
def test_what_the_interface_allows_is_made_and_a_retry_gets_the_same(driver: Driver, more: dict[str, Any]) -> None:
    request = create_request(**{"name": "v", **more})
    volume = driver.CreateVolume(request).volume
    assert ids.is_volume_id(volume.volume_id) and driver.backend.volumes() == {volume.volume_id}
    assert dict(volume.accessible_topology[0].segments) == {_KEY: NODE}
    assert driver.CreateVolume(request).volume == volume


def test_what_sidecars_add_and_secrets_are_never_stored(driver: Driver) -> None:
    request = create_request("v", parameters={"csi.storage.k8s.io/pvc/name": "claim"}, secrets={"key": "hunter2"})
    driver.CreateVolume(request)
    stored = b"".join(path.read_bytes() for path in driver.root.glob("state.db*"))
    assert b"claim" not in stored and b"hunter2" not in stored


def test_the_value_of_an_unknown_parameter_is_not_told(driver: Driver) -> None:
    """It may be a secret in the wrong place."""
    with pytest.raises(InvalidArgument) as refused:
        driver.CreateVolume(create_request("v", parameters={"password": "hunter2"}))
    assert "'password'" in str(refused.value) and "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "more",
    [
        {"size": 3 * MIB},
        {"size": 0, **_range(0, MIB)},
        _capabilities(capability("block")),
        _capabilities(capability(fs_type="xfs")),
        {"parameters": {"allocation": "full"}},
        {"mutable_parameters": {"iops": "7"}},
        _topology(requisite=[_ELSEWHERE]),
    ],
)
def test_a_name_stands_for_one_volume(driver: Driver, more: dict[str, Any]) -> None:
    driver.CreateVolume(create_request("v", 2 * MIB))
    with pytest.raises(AlreadyExists):
        driver.CreateVolume(create_request(**{"name": "v", "size": 2 * MIB, **more}))
    assert len(driver.backend.volumes()) == 1


def test_a_larger_limit_and_a_smaller_requirement_are_compatible(driver: Driver) -> None:
    made = driver.CreateVolume(create_request("v", 2 * MIB)).volume
    assert driver.CreateVolume(create_request("v", 0, **_range(MIB, 4 * MIB))).volume == made
    assert driver.CreateVolume(create_request("v", 0)).volume == made


def test_without_a_size_it_is_one_gibibyte_and_a_clone_is_as_large_as_its_source(driver: Driver) -> None:
    assert driver.CreateVolume(create_request("v", 0)).volume.capacity_bytes == 1 << 30
    source = driver.CreateVolume(create_request("w", 5 * MIB)).volume
    clone = driver.CreateVolume(create_request("x", 0, volume_content_source=from_volume(source.volume_id))).volume
    assert clone.capacity_bytes == 5 * MIB
    assert clone.content_source.volume.volume_id == source.volume_id


def test_without_a_size_it_is_not_larger_than_there_is_room(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver({"capacity": 5 * MIB})
    assert driver.CreateVolume(create_request("v", 0)).volume.capacity_bytes == 5 * MIB


def _snapshot(driver: Driver, volume_id: str) -> str:
    request = csi.CreateSnapshotRequest(name="s", source_volume_id=volume_id)
    return str(driver.CreateSnapshot(request).snapshot.snapshot_id)


@pytest.mark.parametrize("kind", ["snapshot", "volume"])
def test_content_is_copied_and_a_retry_needs_no_source_any_more(driver: Driver, kind: str) -> None:
    volume_id = driver.CreateVolume(create_request("v", 2 * MIB)).volume.volume_id
    (driver.root / "memory/volumes" / volume_id).write_bytes(b"data" + bytes(2 * MIB - 4))
    source = from_snapshot(_snapshot(driver, volume_id)) if kind == "snapshot" else from_volume(volume_id)
    request = create_request("copy", 4 * MIB, volume_content_source=source)
    copy = driver.CreateVolume(request).volume
    content = (driver.root / "memory/volumes" / copy.volume_id).read_bytes()
    assert content[:4] == b"data" and len(content) == copy.capacity_bytes == 4 * MIB
    if kind == "snapshot":
        driver.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=source.snapshot.snapshot_id))
    else:
        driver.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume_id))
    assert driver.CreateVolume(request).volume == copy
    with pytest.raises(AlreadyExists):
        driver.CreateVolume(create_request("copy", 4 * MIB))


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        (_range(MIB), OutOfRange),
        (_range(0, MIB), OutOfRange),
        (_capabilities(capability("block")), InvalidArgument),
        (_capabilities(capability(fs_type="xfs")), InvalidArgument),
    ],
)
def test_a_source_that_does_not_fit_is_refused(driver: Driver, more: dict[str, Any], kind: type[TrivetError]) -> None:
    volume_id = driver.CreateVolume(create_request("v", 2 * MIB)).volume.volume_id
    for source in (from_volume(volume_id), from_snapshot(_snapshot(driver, volume_id))):
        with pytest.raises(kind):
            driver.CreateVolume(create_request("copy", 0, volume_content_source=source, **more))
    assert driver.backend.volumes() == {volume_id}


def test_a_clone_has_the_file_system_of_its_source(driver: Driver) -> None:
    source = driver.CreateVolume(create_request("v", MIB, **_capabilities(capability(fs_type="xfs")))).volume
    clone = driver.CreateVolume(create_request("w", MIB, volume_content_source=from_volume(source.volume_id))).volume
    assert driver.service.records.volumes.get(clone.volume_id).fs_type == "xfs"


@pytest.mark.parametrize(("without", "source"), [("snapshots", from_snapshot("s")), ("clones", from_volume("v"))])
def test_a_back_end_without_it_refuses_a_source(
    make_driver: Callable[..., Driver], without: str, source: csi.VolumeContentSource
) -> None:
    with pytest.raises(InvalidArgument, match="volume_content_source"):
        make_driver({"without": [without]}).CreateVolume(create_request("v", volume_content_source=source))


def test_a_full_disk_leaves_nothing_and_a_retry_makes_it(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver({"capacity": 4 * MIB})
    first = driver.CreateVolume(create_request("v", 3 * MIB)).volume
    with pytest.raises(ResourceExhausted):
        driver.CreateVolume(create_request("w", 3 * MIB))
    assert driver.backend.volumes() == {first.volume_id} and len(driver.service.records.volumes.all()) == 1
    driver.DeleteVolume(csi.DeleteVolumeRequest(volume_id=first.volume_id))
    driver.CreateVolume(create_request("w", 3 * MIB))


def test_what_could_not_be_undone_is_undone_by_the_retry(make_driver: Callable[..., Driver], tmp_path: Any) -> None:
    """The back end fails to make it and then to delete it: the record stays "making", and the name is not lost."""
    broken = tmp_path / "broken"
    driver = make_driver({"broken": str(broken)})
    create = driver.backend.create

    def fail(volume: Any, source: Any) -> None:
        create(volume, source)
        broken.touch()
        raise Unavailable("the back end is broken")

    driver.backend.create = fail  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        driver.CreateVolume(create_request("v"))
    assert [record.phase for record in driver.service.records.volumes.all()] == ["making"]
    assert driver.ListVolumes(csi.ListVolumesRequest()).entries == []
    broken.unlink()
    driver.backend.create = create  # type: ignore[method-assign]
    volume = driver.CreateVolume(create_request("v")).volume
    assert driver.backend.volumes() == {volume.volume_id} and len(driver.service.ledger.held()) == 1
