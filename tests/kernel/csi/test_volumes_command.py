"""trivet volumes: what it shows is what the driver has."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from csi_driver.api.v1 import csi_pb2 as csi
from tests.support.csi_daemon import MIB, NODE, CsiDaemon, capability

_ROOT = Path(__file__).parents[3]


def _run(daemon: CsiDaemon, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trivet", "volumes", "--endpoint", f"unix://{daemon.socket}", *options]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=60)


def test_volumes_and_snapshots_with_size_place_and_health(make_daemon: Callable[..., CsiDaemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    attached = daemon.create("attached", 3 * MIB // 2).volume_id
    ill = daemon.create("ill\tone", volume_capabilities=[capability("block")]).volume_id
    daemon.controller.ControllerPublishVolume(
        csi.ControllerPublishVolumeRequest(volume_id=attached, node_id=NODE, volume_capability=capability())
    )
    snapshot = daemon.snapshot("cut", attached).snapshot_id
    (daemon.root / "memory/volumes" / ill).unlink()
    shown = _run(daemon)
    assert shown.returncode == 0, shown.stderr
    lines = {line.split(" ")[0]: line for line in shown.stdout.splitlines()}
    assert "2 MiB" in lines[attached] and f"attached to {NODE}" in lines[attached] and lines[attached].endswith("healthy")
    assert "mount ext4" in lines[attached]
    assert "ImageMissing" in lines[ill] and "block" in lines[ill] and "\t" not in shown.stdout
    assert "cut" in lines[snapshot] and attached in lines[snapshot]
    found = json.loads(_run(daemon, "--json").stdout)
    assert [one["id"] for one in found["volumes"]] == [attached, ill]
    assert [one["name"] for one in found["volumes"]] == ["attached", "ill\tone"]


def test_without_a_driver_it_is_one_line(make_daemon: Callable[..., CsiDaemon]) -> None:
    failed = _run(make_daemon())
    assert failed.returncode == 1 and len(failed.stderr.splitlines()) == 1
    assert "trivet: " in failed.stderr and "csi.sock" in failed.stderr
