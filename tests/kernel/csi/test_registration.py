"""How the kubelet finds the driver: the registration socket, its answers, its end; and the driver's own socket."""

from __future__ import annotations

import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.api.registration import registration_pb2 as api
from csi_driver.api.registration import registration_pb2_grpc as stubs
from csi_driver.api.v1 import csi_pb2 as csi
from tests.support.csi_daemon import DRIVER, CsiDaemon


@pytest.fixture
def make_short() -> Iterator[Callable[..., CsiDaemon]]:
    """In a directory with a short name: that of a socket has 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="csi"))
    made: list[CsiDaemon] = []

    def make(**settings: Any) -> CsiDaemon:
        made.append(CsiDaemon(directory, **{"registration": True, **settings}))
        return made[-1]

    yield make
    for one in made:
        one.close()
    shutil.rmtree(directory)


def _path(daemon: CsiDaemon) -> Path:
    return daemon.kubelet / "plugins_registry" / f"{DRIVER}-reg.sock"


def test_the_kubelet_is_told_name_and_socket(make_short: Callable[..., CsiDaemon]) -> None:
    daemon = make_short()
    daemon.start()
    with grpc.insecure_channel(f"unix://{_path(daemon)}") as channel:
        registration: Any = stubs.RegistrationStub(channel)
        info = registration.GetInfo(api.InfoRequest())
        assert (info.type, info.name, info.endpoint) == ("CSIPlugin", DRIVER, str(daemon.socket))
        assert [version.split(".")[0] for version in info.supported_versions] == ["1"]
        registration.NotifyRegistrationStatus(api.RegistrationStatus(plugin_registered=True))
        registration.NotifyRegistrationStatus(api.RegistrationStatus(plugin_registered=False, error="name clash"))
    assert "registered with the kubelet" in daemon.log() and "name clash" in daemon.log()


def test_the_socket_goes_at_the_end_and_a_stale_one_is_replaced(make_short: Callable[..., CsiDaemon]) -> None:
    daemon = make_short()
    daemon.start()
    assert stat.S_IMODE(_path(daemon).stat().st_mode) == 0o600 == stat.S_IMODE(daemon.socket.stat().st_mode)
    daemon.kill()
    assert _path(daemon).exists()
    daemon.start()
    assert daemon.stop() == 0
    assert not _path(daemon).exists() and not daemon.socket.exists()


def test_without_registration_that_is_the_sidecars(make_short: Callable[..., CsiDaemon]) -> None:
    """The usual registrar asks the driver's own socket for its name, and serves the other one itself."""
    daemon = make_short(registration=False)
    daemon.start()
    assert not _path(daemon).exists()
    assert daemon.identity.GetPluginInfo(csi.GetPluginInfoRequest()).name == DRIVER


def test_a_registration_socket_that_is_served_is_not_taken(make_short: Callable[..., CsiDaemon]) -> None:
    daemon = make_short()
    _path(daemon).parent.mkdir()
    with socket.socket(socket.AF_UNIX) as sidecar:
        sidecar.bind(str(_path(daemon)))
        sidecar.listen()
        with pytest.raises(RuntimeError, match="another server is listening there"):
            daemon.start()
    assert not daemon.socket.exists()


def test_the_endpoint_may_come_from_the_environment(make_short: Callable[..., CsiDaemon]) -> None:
    """CSI_ENDPOINT, as whoever supervises a plugin says it; an option goes first."""
    daemon = make_short()
    other = daemon.directory / "other.sock"
    with pytest.raises(RuntimeError, match="--endpoint"):
        daemon.start(CSI_ENDPOINT="tcp://127.0.0.1:1")
    daemon.start(CSI_ENDPOINT=f"unix://{other}")
    assert other.exists() and not daemon.socket.exists()
