"""Snapshots, groups of them, and their metadata."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records import ids
from runtime_core.errors import (
    Aborted,
    AlreadyExists,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    TrivetError,
    Unavailable,
)
from tests.support.csi_daemon import MIB, NODE, create_request
from tests.unit.csi.conftest import Driver

_BLOCK = 4096


@pytest.fixture
def volume_id(driver: Driver) -> str:
    return str(driver.CreateVolume(create_request("v", MIB)).volume.volume_id)


def _snapshot(driver: Driver, volume_id: str, name: str = "s", **more: Any) -> csi.Snapshot:
    return driver.CreateSnapshot(csi.CreateSnapshotRequest(name=name, source_volume_id=volume_id, **more)).snapshot


def _group(driver: Driver, name: str, *volume_ids: str, **more: Any) -> csi.VolumeGroupSnapshot:
    request = csi.CreateVolumeGroupSnapshotRequest(name=name, source_volume_ids=volume_ids, **more)
    return driver.CreateVolumeGroupSnapshot(request).group_snapshot


def _listed(driver: Driver, **filters: str) -> list[str]:
    return [item.snapshot.snapshot_id for item in driver.ListSnapshots(csi.ListSnapshotsRequest(**filters)).entries]


def _write(driver: Driver, volume_id: str, *blocks: int, fill: bytes = b"x") -> None:
    with (driver.root / "memory/volumes" / volume_id).open("r+b") as file:
        for block in blocks:
            file.seek(block * _BLOCK)
            file.write(fill * _BLOCK)


def test_a_snapshot_tells_all_and_a_retry_gets_the_same(driver: Driver, volume_id: str) -> None:
    before = time.time()
    made = _snapshot(driver, volume_id)
    assert ids.is_snapshot_id(made.snapshot_id) and made.ready_to_use and made.size_bytes == MIB
    assert made.source_volume_id == volume_id and made.group_snapshot_id == ""
    assert before <= made.creation_time.ToNanoseconds() / 1e9 <= time.time()
    assert dict(made.accessible_topology[0].segments) == {"topology.hostpath.csi.trivet.dev/node": NODE}
    assert _snapshot(driver, volume_id) == made
    assert driver.GetSnapshot(csi.GetSnapshotRequest(snapshot_id=made.snapshot_id)).snapshot == made
    assert driver.backend.snapshots() == {made.snapshot_id}


def test_a_snapshot_outlives_its_volume(driver: Driver, volume_id: str) -> None:
    made = _snapshot(driver, volume_id)
    driver.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume_id))
    assert _listed(driver) == [made.snapshot_id] and _snapshot(driver, volume_id) == made


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"name": "x" * 129}, InvalidArgument),
        ({"name": "a\x07"}, InvalidArgument),
        ({"source_volume_id": ids.new_volume_id()}, NotFound),
        ({"source_volume_id": "../../etc/passwd"}, NotFound),
        ({"parameters": {"secret": "hunter2"}}, InvalidArgument),
        ({"accessibility_requirements": csi.TopologyRequirement(requisite=[csi.Topology(segments={"a": "b"})])},
         ResourceExhausted),
    ],
)  # fmt: skip
def test_a_wrong_snapshot_is_not_made(driver: Driver, volume_id: str, more: dict[str, Any], kind: type[TrivetError]) -> None:
    with pytest.raises(kind) as refused:
        driver.CreateSnapshot(csi.CreateSnapshotRequest(**{"name": "s", "source_volume_id": volume_id, **more}))
    assert "hunter2" not in str(refused.value)
    assert driver.backend.snapshots() == set() and driver.service.records.snapshots.all() == []


def test_a_name_stands_for_one_snapshot(driver: Driver, volume_id: str) -> None:
    other = driver.CreateVolume(create_request("w")).volume.volume_id
    _snapshot(driver, volume_id)
    with pytest.raises(AlreadyExists):
        _snapshot(driver, other)


def test_lists_are_filtered_by_volume_and_by_id(driver: Driver, volume_id: str) -> None:
    other = driver.CreateVolume(create_request("w")).volume.volume_id
    of_first = [_snapshot(driver, volume_id, f"s{n}").snapshot_id for n in range(3)]
    of_other = [_snapshot(driver, other, f"t{n}").snapshot_id for n in range(2)]
    assert _listed(driver) == of_first + of_other
    assert _listed(driver, source_volume_id=volume_id) == of_first
    assert _listed(driver, source_volume_id=other) == of_other
    assert _listed(driver, snapshot_id=of_other[1]) == [of_other[1]]
    assert _listed(driver, snapshot_id=of_other[1], source_volume_id=volume_id) == []
    for nobody in ("nothing", "../x", ids.new_snapshot_id()):
        assert _listed(driver, snapshot_id=nobody) == _listed(driver, source_volume_id=nobody) == []
        with pytest.raises(NotFound):
            driver.GetSnapshot(csi.GetSnapshotRequest(snapshot_id=nobody))


def test_a_deleted_snapshot_is_gone_and_its_name_free(driver: Driver, volume_id: str) -> None:
    made = _snapshot(driver, volume_id)
    for _ in range(2):
        driver.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=made.snapshot_id))
    assert driver.backend.snapshots() == set() and _listed(driver) == []
    assert _snapshot(driver, volume_id).snapshot_id != made.snapshot_id


def test_many_may_read_a_snapshot_and_none_delete_it_meanwhile(driver: Driver, volume_id: str) -> None:
    made = _snapshot(driver, volume_id)
    with driver.service.locks.hold(shared=[made.snapshot_id]):
        source = csi.VolumeContentSource(snapshot={"snapshot_id": made.snapshot_id})
        driver.CreateVolume(create_request("copy", volume_content_source=source))
        with pytest.raises(Aborted):
            driver.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=made.snapshot_id))
    driver.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=made.snapshot_id))


# ---- groups


def test_a_group_is_one_cut_and_a_retry_gets_the_same(driver: Driver, volume_id: str) -> None:
    other = driver.CreateVolume(create_request("w", 2 * MIB)).volume.volume_id
    made = _group(driver, "g", other, volume_id)
    assert made.ready_to_use and ids.is_group_id(made.group_snapshot_id)
    assert [one.source_volume_id for one in made.snapshots] == [other, volume_id]
    assert {one.group_snapshot_id for one in made.snapshots} == {made.group_snapshot_id}
    assert {str(one.creation_time) for one in made.snapshots} == {str(made.creation_time)}
    assert _group(driver, "g", other, volume_id) == made == _group(driver, "g", volume_id, other)
    members = [one.snapshot_id for one in made.snapshots]
    request = csi.GetVolumeGroupSnapshotRequest(group_snapshot_id=made.group_snapshot_id, snapshot_ids=members)
    assert driver.GetVolumeGroupSnapshot(request).group_snapshot == made
    assert set(_listed(driver)) == set(members) == driver.backend.snapshots()


def test_a_member_of_a_group_is_restored_alone_but_not_deleted_alone(driver: Driver, volume_id: str) -> None:
    (member,) = _group(driver, "g", volume_id).snapshots
    source = csi.VolumeContentSource(snapshot={"snapshot_id": member.snapshot_id})
    driver.CreateVolume(create_request("copy", volume_content_source=source))
    with pytest.raises(InvalidArgument, match="group"):
        driver.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=member.snapshot_id))
    assert driver.backend.snapshots() == {member.snapshot_id}


def test_a_group_and_a_snapshot_may_have_one_name(driver: Driver, volume_id: str) -> None:
    (member,) = _group(driver, "s", volume_id).snapshots
    assert _snapshot(driver, volume_id, "s").snapshot_id != member.snapshot_id


def test_a_deleted_group_takes_its_snapshots(driver: Driver, volume_id: str) -> None:
    made = _group(driver, "g", volume_id)
    members = [one.snapshot_id for one in made.snapshots]
    request = csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=made.group_snapshot_id, snapshot_ids=members)
    for _ in range(2):
        driver.DeleteVolumeGroupSnapshot(request)
    assert driver.backend.snapshots() == set() and _listed(driver) == []
    assert [entry.kind for entry in driver.service.ledger.held()] == ["volume"]
    with pytest.raises(NotFound):
        driver.GetVolumeGroupSnapshot(
            csi.GetVolumeGroupSnapshotRequest(group_snapshot_id=made.group_snapshot_id, snapshot_ids=members)
        )


@pytest.mark.parametrize("named", [[], ["snap-" + "0" * 32]])
def test_snapshots_that_are_not_the_groups_are_a_mismatch(driver: Driver, volume_id: str, named: list[str]) -> None:
    group_id = _group(driver, "g", volume_id).group_snapshot_id
    for rpc in ("GetVolumeGroupSnapshot", "DeleteVolumeGroupSnapshot"):
        with pytest.raises(InvalidArgument, match="snapshot_ids"):
            getattr(driver, rpc)(getattr(csi, f"{rpc}Request")(group_snapshot_id=group_id, snapshot_ids=named))
    assert len(driver.backend.snapshots()) == 1


@pytest.mark.parametrize("foreign", ["..", "group-x", "group-" + "0" * 32, "\x00"])
def test_a_group_that_is_not_ours_is_gone_already(driver: Driver, foreign: str) -> None:
    request = csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=foreign, snapshot_ids=["s"])
    driver.DeleteVolumeGroupSnapshot(request)
    with pytest.raises(NotFound):
        driver.GetVolumeGroupSnapshot(csi.GetVolumeGroupSnapshotRequest(group_snapshot_id=foreign, snapshot_ids=["s"]))


@pytest.mark.parametrize(
    ("volumes", "kind"),
    [(["own", ids.new_volume_id()], NotFound), (["own", "own"], InvalidArgument), (["own", "../x"], NotFound)],
)
def test_a_wrong_group_is_not_cut(driver: Driver, volume_id: str, volumes: list[str], kind: type[TrivetError]) -> None:
    with pytest.raises(kind, match=r"source_volume_ids\[1\]"):
        _group(driver, "g", *(volume_id if one == "own" else one for one in volumes))
    assert driver.backend.snapshots() == set() and driver.service.records.groups.all() == []


def test_a_group_of_other_volumes_has_its_name_already(driver: Driver, volume_id: str) -> None:
    other = driver.CreateVolume(create_request("w")).volume.volume_id
    _group(driver, "g", volume_id)
    for volumes in ([other], [volume_id, other]):
        with pytest.raises(AlreadyExists):
            _group(driver, "g", *volumes)


def test_a_group_of_which_one_cannot_be_cut_leaves_nothing(driver: Driver, volume_id: str) -> None:
    other = driver.CreateVolume(create_request("w")).volume.volume_id
    (driver.root / "memory/volumes" / other).unlink()
    with pytest.raises(TrivetError):
        _group(driver, "g", volume_id, other)
    assert driver.backend.snapshots() == set() and driver.service.records.snapshots.all() == []
    assert driver.service.records.groups.all() == []


# ---- metadata


def _tuples(messages: list[Any]) -> list[tuple[int, int]]:
    return [(one.byte_offset, one.size_bytes) for message in messages for one in message.block_metadata]


def _allocated(driver: Driver, snapshot_id: str, start: int = 0, most: int = 0) -> list[Any]:
    request = csi.GetMetadataAllocatedRequest(snapshot_id=snapshot_id, starting_offset=start, max_results=most)
    return list(driver.GetMetadataAllocated(request))


def _delta(driver: Driver, base: str, target: str, start: int = 0, most: int = 0) -> list[Any]:
    request = csi.GetMetadataDeltaRequest(
        base_snapshot_id=base, target_snapshot_id=target, starting_offset=start, max_results=most
    )
    return list(driver.GetMetadataDelta(request))


def test_metadata_tells_what_is_there_and_what_changed(driver: Driver, volume_id: str) -> None:
    _write(driver, volume_id, 1, 7)
    base = _snapshot(driver, volume_id, "base").snapshot_id
    _write(driver, volume_id, 7, 9, fill=b"y")
    target = _snapshot(driver, volume_id, "target").snapshot_id
    assert _tuples(_allocated(driver, base)) == [(1 * _BLOCK, _BLOCK), (7 * _BLOCK, _BLOCK)]
    assert _tuples(_delta(driver, base, target)) == [(7 * _BLOCK, _BLOCK), (9 * _BLOCK, _BLOCK)]
    assert _tuples(_delta(driver, base, base)) == []
    (message,) = _allocated(driver, base)
    assert (message.block_metadata_type, message.volume_capacity_bytes) == (csi.VARIABLE_LENGTH, MIB)


def test_an_empty_snapshot_tells_its_size(driver: Driver, volume_id: str) -> None:
    (message,) = _allocated(driver, _snapshot(driver, volume_id).snapshot_id)
    assert message.volume_capacity_bytes == MIB and not message.block_metadata


@pytest.mark.parametrize("most", [1, 2, 3, 5, 255, 1000])
def test_a_message_holds_no_more_than_asked_for(driver: Driver, volume_id: str, most: int) -> None:
    _write(driver, volume_id, *range(5))
    messages = _allocated(driver, _snapshot(driver, volume_id).snapshot_id, most=most)
    assert len(_tuples(messages)) == 5 and all(1 <= len(one.block_metadata) <= most for one in messages)


def test_a_stream_goes_on_where_it_was_broken(driver: Driver, volume_id: str) -> None:
    """Also within a tuple: nothing before the offset comes again."""
    _write(driver, volume_id, 0, 3, 4)
    snapshot_id = _snapshot(driver, volume_id).snapshot_id
    assert _tuples(_allocated(driver, snapshot_id, _BLOCK)) == [(3 * _BLOCK, _BLOCK), (4 * _BLOCK, _BLOCK)]
    assert _tuples(_allocated(driver, snapshot_id, 3 * _BLOCK + 100)) == [
        (3 * _BLOCK + 100, _BLOCK - 100),
        (4 * _BLOCK, _BLOCK),
    ]
    assert _tuples(_allocated(driver, snapshot_id, MIB)) == []


@pytest.mark.parametrize(("start", "most", "kind"), [(-1, 0, OutOfRange), (MIB + 1, 0, OutOfRange), (0, -1, InvalidArgument)])
def test_a_wrong_offset_or_limit_is_refused(
    driver: Driver, volume_id: str, start: int, most: int, kind: type[TrivetError]
) -> None:
    snapshot_id = _snapshot(driver, volume_id).snapshot_id
    with pytest.raises(kind):
        _allocated(driver, snapshot_id, start, most)
    with pytest.raises(kind):
        _delta(driver, snapshot_id, snapshot_id, start, most)


def test_metadata_of_what_is_not_there_or_does_not_belong_together(driver: Driver, volume_id: str) -> None:
    other = driver.CreateVolume(create_request("w")).volume.volume_id
    first, second = _snapshot(driver, volume_id, "1").snapshot_id, _snapshot(driver, volume_id, "2").snapshot_id
    foreign = _snapshot(driver, other, "3").snapshot_id
    for missing in ("..", ids.new_snapshot_id()):
        for call in (
            lambda missing=missing: _allocated(driver, missing),
            lambda missing=missing: _delta(driver, missing, first),
            lambda missing=missing: _delta(driver, first, missing),
        ):
            with pytest.raises(NotFound):
                call()
    for base, target in (("", first), (first, ""), (second, first), (first, foreign)):
        with pytest.raises(InvalidArgument):
            _delta(driver, base, target)
    with pytest.raises(InvalidArgument):
        _allocated(driver, "")


def test_a_stream_keeps_its_snapshot_until_it_is_read(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver({"fail_at": 2 * _BLOCK})
    volume_id = driver.CreateVolume(create_request("v")).volume.volume_id
    _write(driver, volume_id, 0, 1)
    snapshot_id = _snapshot(driver, volume_id).snapshot_id
    stream = driver.GetMetadataAllocated(csi.GetMetadataAllocatedRequest(snapshot_id=snapshot_id, max_results=1))
    assert next(stream).block_metadata[0].byte_offset == 0
    with pytest.raises(Aborted):
        driver.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=snapshot_id))
    assert next(stream).block_metadata[0].byte_offset == _BLOCK
    with pytest.raises(Unavailable):
        next(stream)
    driver.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=snapshot_id))
