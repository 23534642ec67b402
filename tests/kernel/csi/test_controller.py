"""trivet-csi as its clients see it: through gRPC, over HTTP, and in its log."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from tests.support.csi_daemon import DRIVER, MIB, NODE, CsiDaemon, capability, create_request, from_snapshot


def _code(call: Callable[[], Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    code: grpc.StatusCode = refused.value.code()
    return code


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_identity_tells_who_it_is_and_what_it_can(make_daemon: Callable[..., CsiDaemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    info = daemon.identity.GetPluginInfo(csi.GetPluginInfoRequest())
    assert (info.name, dict(info.manifest)) == (DRIVER, {"backend": "memory"}) and info.vendor_version
    assert daemon.identity.Probe(csi.ProbeRequest()).ready.value
    plugin = daemon.identity.GetPluginCapabilities(csi.GetPluginCapabilitiesRequest()).capabilities
    services = {one.service.type for one in plugin if one.HasField("service")}
    assert services == set(csi.PluginCapability.Service.Type.values()) - {0}
    assert [one.volume_expansion.type for one in plugin if one.HasField("volume_expansion")] == [1]
    controller = daemon.controller.ControllerGetCapabilities(csi.ControllerGetCapabilitiesRequest()).capabilities
    assert {one.rpc.type for one in controller} == set(csi.ControllerServiceCapability.RPC.Type.values()) - {0}
    groups = daemon.groups.GroupControllerGetCapabilities(csi.GroupControllerGetCapabilitiesRequest()).capabilities
    assert [one.rpc.type for one in groups] == [1]


def test_what_the_back_end_cannot_do_is_unimplemented(make_daemon: Callable[..., CsiDaemon]) -> None:
    without = {"without": ["snapshots", "mutable"], "expansion": ""}
    daemon = make_daemon(backend_settings=without, attach=False)
    daemon.start()
    plugin = daemon.identity.GetPluginCapabilities(csi.GetPluginCapabilitiesRequest()).capabilities
    assert [one.service.type for one in plugin] == [1, 2]
    for call in (
        lambda: daemon.snapshot("s", "v"),
        lambda: daemon.controller.ListSnapshots(csi.ListSnapshotsRequest()),
        lambda: daemon.controller.ControllerExpandVolume(csi.ControllerExpandVolumeRequest()),
        lambda: daemon.controller.ControllerModifyVolume(csi.ControllerModifyVolumeRequest()),
        lambda: daemon.controller.ControllerPublishVolume(csi.ControllerPublishVolumeRequest()),
        lambda: daemon.groups.GroupControllerGetCapabilities(csi.GroupControllerGetCapabilitiesRequest()),
        lambda: list(daemon.metadata.GetMetadataAllocated(csi.GetMetadataAllocatedRequest(snapshot_id="s"))),
    ):
        assert _code(call) == grpc.StatusCode.UNIMPLEMENTED


def test_calls_for_different_volumes_do_not_wait_and_for_one_are_aborted(make_daemon: Callable[..., CsiDaemon]) -> None:
    """Fifty at once; then two for one name, of which one is slow."""
    daemon = make_daemon()
    daemon.start()
    calls = [daemon.controller.CreateVolume.future(create_request(f"v{number}")) for number in range(50)]
    assert len({call.result(timeout=30).volume.volume_id for call in calls}) == 50
    daemon.stop()
    daemon.start("csi.create.recorded=delay:1500")
    both = [daemon.controller.CreateVolume.future(create_request("slow")) for _ in range(2)]
    outcomes = [call.exception().code() if call.exception() else call.result().volume.volume_id for call in both]
    (made,) = [outcome for outcome in outcomes if outcome != grpc.StatusCode.ABORTED]
    assert daemon.create("slow").volume_id == made


def test_secrets_reach_neither_log_nor_disk(make_daemon: Callable[..., CsiDaemon]) -> None:
    daemon = make_daemon(log_level="debug")
    daemon.start()
    secrets = {"password": "hunter2"}
    volume_id = daemon.create("v", secrets=secrets).volume_id
    daemon.controller.CreateSnapshot(csi.CreateSnapshotRequest(name="s", source_volume_id=volume_id, secrets=secrets))
    _code(lambda: daemon.create("w", parameters=secrets))
    _code(lambda: daemon.create("", secrets=secrets))
    daemon.stop()
    assert "CreateVolume" in daemon.log()
    for path in (daemon.directory / "log", *daemon.root.glob("state.db*")):
        assert b"hunter2" not in path.read_bytes(), path


def test_every_line_of_the_log_is_json_with_method_code_and_time(make_daemon: Callable[..., CsiDaemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.create("v")
    assert _code(lambda: daemon.create("")) == grpc.StatusCode.INVALID_ARGUMENT
    daemon.stop()
    calls = [line for line in map(json.loads, daemon.log().splitlines()) if line["event"] == "call"]
    assert [(line["method"], line.get("code")) for line in calls] == [
        ("CreateVolume", None), ("CreateVolume", "INVALID_ARGUMENT"),
    ]  # fmt: skip
    assert all(line["ms"] >= 0 for line in calls) and "name: is missing" in calls[1]["error"]


def test_health_and_metrics_over_http(make_daemon: Callable[..., CsiDaemon], tmp_path: Path) -> None:
    port, broken = _free_port(), tmp_path / "broken"
    daemon = make_daemon(health_port=port, backend_settings={"broken": str(broken)})
    daemon.start()
    volume_id = daemon.create("v", 2 * MIB).volume_id
    daemon.snapshot("s", volume_id)
    _code(lambda: daemon.create(""))
    assert _get(port, "/healthz") == (200, "ok\n")
    assert _get(port, "/other")[0] == 404
    status, text = _get(port, "/metrics")
    assert status == 200
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    made = 'method="CreateVolume",code="OK"'
    assert samples[f"trivet_csi_call_seconds_count{{{made}}}"] == "1"
    assert samples[f'trivet_csi_call_seconds_bucket{{{made},le="+Inf"}}'] == "1"
    assert samples['trivet_csi_call_seconds_count{method="CreateVolume",code="INVALID_ARGUMENT"}'] == "1"
    assert samples[f'trivet_csi_volume_size_bytes{{volume_id="{volume_id}",access="mount"}}'] == str(2 * MIB)
    assert samples[f'trivet_csi_volume_healthy{{volume_id="{volume_id}",access="mount"}}'] == "1"
    assert samples["trivet_csi_snapshots"] == "1"
    (daemon.root / "memory/volumes" / volume_id).unlink()
    assert f'trivet_csi_volume_healthy{{volume_id="{volume_id}",access="mount"}} 0' in _get(port, "/metrics")[1]
    broken.touch()
    assert _get(port, "/healthz")[0] == 503 and "broken" in _get(port, "/healthz")[1]
    assert _code(lambda: daemon.identity.Probe(csi.ProbeRequest())) == grpc.StatusCode.FAILED_PRECONDITION


def test_a_port_that_is_taken_is_told(make_daemon: Callable[..., CsiDaemon]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RuntimeError, match="--health-port"):
            make_daemon(health_port=taken.getsockname()[1]).start()


def test_a_second_driver_on_one_directory_gives_way(make_daemon: Callable[..., CsiDaemon]) -> None:
    first = make_daemon()
    first.start()
    second = make_daemon(endpoint=f"unix://{first.directory}/second.sock")
    with pytest.raises(RuntimeError, match=f"in use by process {first.pid}"):
        second.start()
    assert first.create("v").volume_id


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backend": "nothing"}, "no volume driver 'nothing'"),
        ({"endpoint": "unix:///" + "x" * 120}, "longer than the 107 bytes"),
        ({"driver_name": "Not_A_Domain"}, "driver-name"),
        ({"max_volumes": -1}, "max-volumes"),
    ],
)
def test_a_wrong_setting_is_one_line(make_daemon: Callable[..., CsiDaemon], settings: dict[str, Any], says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        make_daemon(**settings).start()


def test_a_stop_lets_calls_end(make_daemon: Callable[..., CsiDaemon]) -> None:
    daemon = make_daemon()
    daemon.start("memory.create=delay:800")
    slow = daemon.controller.CreateVolume.future(create_request("slow"))
    while not list((daemon.root / "memory/volumes").glob("vol-*")):
        daemon.identity.Probe(csi.ProbeRequest())
    daemon.terminate()
    assert slow.result(timeout=20).volume.volume_id
    assert daemon.wait() == 0


def test_restores_of_one_snapshot_at_once(make_daemon: Callable[..., CsiDaemon]) -> None:
    """None is turned away because another one reads the same snapshot."""
    daemon = make_daemon()
    daemon.start("csi.create.recorded=delay:50")
    snapshot_id = daemon.snapshot("s", daemon.create("v").volume_id).snapshot_id
    requests = [create_request(f"r{n}", volume_content_source=from_snapshot(snapshot_id)) for n in range(10)]
    calls = [daemon.controller.CreateVolume.future(request) for request in requests]
    assert len({call.result(timeout=30).volume.volume_id for call in calls}) == 10


def test_an_attachment_survives_a_restart(make_daemon: Callable[..., CsiDaemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    volume_id = daemon.create("v").volume_id
    daemon.controller.ControllerPublishVolume(
        csi.ControllerPublishVolumeRequest(volume_id=volume_id, node_id=NODE, volume_capability=capability())
    )
    daemon.kill()
    daemon.start()
    (entry,) = daemon.controller.ListVolumes(csi.ListVolumesRequest()).entries
    assert list(entry.status.published_node_ids) == [NODE]
    delete = csi.DeleteVolumeRequest(volume_id=volume_id)
    assert _code(lambda: daemon.controller.DeleteVolume(delete)) == grpc.StatusCode.FAILED_PRECONDITION
