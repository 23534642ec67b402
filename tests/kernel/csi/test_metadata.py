"""Snapshot metadata of block volumes as a backup program uses it: what it copies is the volume, and no more than that."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.api.v1 import csi_pb2_grpc as stubs
from runtime_core.testing.volume_file_systems import file_system_directory
from tests.support.csi_daemon import MIB, NODE, CsiDaemon, capability, daemon, from_snapshot

_SIZE = 32 * MIB
#: back end, and the file system below (runtime_core/testing/volume_file_systems.py)
_BACKENDS = [("loop", ""), ("loop", "xfs"), ("btrfs", "btrfs")]


class Device:
    """Block volumes, staged and published on this node."""

    def __init__(self, driver: CsiDaemon) -> None:
        self.driver = driver
        self._node: Any = stubs.NodeStub(driver.channel)

    def publish(self, name: str, **more: Any) -> tuple[str, Path]:
        block = capability("block")
        volume_id = self.driver.create(name, _SIZE, volume_capabilities=[block], **more).volume_id
        staging, target = self.driver.kubelet / "staging" / name, self.driver.kubelet / "pods" / name
        staging.mkdir(parents=True)
        target.parent.mkdir(exist_ok=True)
        of = {"volume_id": volume_id, "volume_capability": block}
        self.driver.controller.ControllerPublishVolume(csi.ControllerPublishVolumeRequest(node_id=NODE, **of))
        self._node.NodeStageVolume(csi.NodeStageVolumeRequest(staging_target_path=str(staging), **of))
        self._node.NodePublishVolume(
            csi.NodePublishVolumeRequest(staging_target_path=str(staging), target_path=str(target), **of)
        )
        return volume_id, target


@pytest.fixture(params=_BACKENDS, ids=lambda one: "-".join(filter(None, one)))
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Device]:
    backend, below = request.param
    (tmp_path / "disk").mkdir()
    with file_system_directory(tmp_path / "disk", below) as root, daemon(tmp_path, backend=backend, root=str(root)) as driver:
        yield Device(driver)


def _write(path: Path, *places: tuple[int, int]) -> None:
    with path.open("r+b", buffering=0) as file:
        for offset, length in places:
            file.seek(offset)
            file.write(os.urandom(length))
        os.fsync(file.fileno())


def _tuples(stream: Any) -> list[tuple[int, int]]:
    return [(one.byte_offset, one.size_bytes) for message in stream for one in message.block_metadata]


def _allocated(driver: CsiDaemon, snapshot_id: str, **more: Any) -> list[tuple[int, int]]:
    request = csi.GetMetadataAllocatedRequest(snapshot_id=snapshot_id, **more)
    return _tuples(driver.metadata.GetMetadataAllocated(request))


def _delta(driver: CsiDaemon, base: str, target: str, **more: Any) -> list[tuple[int, int]]:
    request = csi.GetMetadataDeltaRequest(base_snapshot_id=base, target_snapshot_id=target, **more)
    return _tuples(driver.metadata.GetMetadataDelta(request))


def _copy(source: Path, target: bytearray, tuples: list[tuple[int, int]]) -> None:
    with source.open("rb", buffering=0) as file:
        for offset, length in tuples:
            file.seek(offset)
            target[offset : offset + length] = file.read(length)


def test_a_full_and_an_incremental_backup_are_the_volume(device: Device) -> None:
    volume_id, path = device.publish("v")
    _write(path, (0, 4096), (5 * MIB, 100_000), (_SIZE - 4096, 4096))
    base = device.driver.snapshot("base", volume_id).snapshot_id
    _write(path, (5 * MIB, 512), (20 * MIB, 70_000))
    target = device.driver.snapshot("target", volume_id).snapshot_id
    _write(path, (9 * MIB, 4096))
    _, of_base = device.publish("base", volume_content_source=from_snapshot(base))
    _, of_target = device.publish("target", volume_content_source=from_snapshot(target))
    full, changes = _allocated(device.driver, base), _delta(device.driver, base, target)
    backup = bytearray(_SIZE)
    _copy(of_base, backup, full)
    assert hashlib.sha256(backup).digest() == hashlib.sha256(of_base.read_bytes()).digest()
    _copy(of_target, backup, changes)
    assert hashlib.sha256(backup).digest() == hashlib.sha256(of_target.read_bytes()).digest()
    assert sum(length for _, length in full) < 2 * MIB and sum(length for _, length in changes) < MIB


def test_tuples_ascend_and_a_broken_stream_goes_on(device: Device) -> None:
    volume_id, path = device.publish("v")
    _write(path, *((n * MIB, 8192) for n in range(0, 32, 3)))
    snapshot_id = device.driver.snapshot("s", volume_id).snapshot_id
    everything = _allocated(device.driver, snapshot_id)
    ends = [0] + [offset + length for offset, length in everything]
    assert all(offset >= end for (offset, _), end in zip(everything, ends, strict=False))
    request = csi.GetMetadataAllocatedRequest(snapshot_id=snapshot_id, max_results=2)
    stream = device.driver.metadata.GetMetadataAllocated(request)
    first = _tuples([next(stream), next(stream)])
    stream.cancel()
    rest = _allocated(device.driver, snapshot_id, starting_offset=sum(first[-1]), max_results=3)
    assert first + rest == everything
    assert _allocated(device.driver, snapshot_id, starting_offset=_SIZE) == []


def test_an_error_of_a_stream_has_its_code(device: Device) -> None:
    """As that of any call, though it comes while the answer is read."""
    volume_id, _ = device.publish("v")
    snapshot_id = device.driver.snapshot("s", volume_id).snapshot_id
    for more, code in (
        ({"starting_offset": _SIZE + 1}, grpc.StatusCode.OUT_OF_RANGE),
        ({"starting_offset": -1}, grpc.StatusCode.OUT_OF_RANGE),
        ({"max_results": -1}, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            _allocated(device.driver, snapshot_id, **more)
        assert refused.value.code() == code
    with pytest.raises(grpc.RpcError) as refused:
        _delta(device.driver, "snap-" + "0" * 32, snapshot_id)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
