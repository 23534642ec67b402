"""An image's VOLUMEs, through gRPC alone: there, writable, filled, and gone with their container."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from tests.support.cri_client import Client
from trivet.demo import image as demo_image
from trivet.demo.node import DemoNode
from trivet.demo.registry import Registry

_FIRST, _SIZE = 3_000_000, 65536
_VOLUMES = {"/data": {}, "/made/new": {}, "/run/link/inner": {}, "relative": {}}
_MEMBERS: list[tuple[str, dict[str, Any]]] = [
    ("data", {"type": tarfile.DIRTYPE, "mode": 0o2750, "uid": 1000, "gid": 2000, "mtime": 1_500_000_000}),
    ("data/file", {"mode": 0o640, "uid": 1001, "gid": 2001}),
    ("data/s", {"type": tarfile.DIRTYPE, "mode": 0o700, "uid": 7, "gid": 8}),
    ("data/s/hard", {"type": tarfile.LNKTYPE, "linkname": "data/file"}),
    ("data/l", {"type": tarfile.SYMTYPE, "linkname": "../etc/passwd"}),
    ("target/inner", {"type": tarfile.DIRTYPE, "mode": 0o711, "uid": 5, "gid": 6}),
    ("run/link", {"type": tarfile.SYMTYPE, "linkname": "/target"}),
    ("file", {}),
]  # fmt: skip


def _layer() -> tuple[bytes, bytes, str]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, changes in _MEMBERS:
            member = tarfile.TarInfo(name)
            for key, value in changes.items():
                setattr(member, key, value)
            member.size = 4 if member.isreg() else 0
            archive.addfile(member, io.BytesIO(b"text"))
    return gzip.compress(buffer.getvalue(), mtime=0), buffer.getvalue(), demo_image.LAYER_TYPE


class _Volumes(Client):
    """A client whose daemon can pull images with the volumes that a test wants."""

    def __init__(self, node: DemoNode, registry: Registry) -> None:
        self._registry, self._layers = registry, [demo_image.build_layer(), _layer()]
        self.images = node.images()
        super().__init__(node, self.image("1", _VOLUMES))
        self.directory = node.directory / "root" / "image-volumes"

    def image(self, tag: str, volumes: dict[str, Any]) -> str:
        reference = self._registry.put_image("t/volumes", tag, self._layers, {"Env": ["PATH=/bin"], "Volumes": volumes})
        self.images.PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)))
        return reference

    def kept(self) -> list[str]:
        return [path.name for path in self.directory.iterdir()] if self.directory.exists() else []

    def remove(self, container: str) -> None:
        self.runtime.RemoveContainer(api.RemoveContainerRequest(container_id=container))


@pytest.fixture(scope="module")
def client() -> Iterator[_Volumes]:
    registry, node = Registry(), DemoNode()
    try:
        node.start()
        yield _Volumes(node, registry)
    finally:
        node.close()
        registry.close()


_READ_ONLY = api.LinuxContainerSecurityContext(readonly_rootfs=True)


@pytest.mark.parametrize("security", [None, _READ_ONLY])
def test_a_volume_has_what_the_image_has_there(security: Any, client: _Volumes, pod: str) -> None:
    """Owners, modes, times, links; where the image has nothing it is empty and root's; and it can be written."""
    container = client.run(pod, "sleep 100", security=security)
    shown = client.exec(
        container, "sh", "-c",
        "stat -c '%n %a %u %g' /data /data/file /data/s /made/new /run/link/inner /relative; stat -c %Y /data; cat /data/s/hard;"
        "stat -c %h /data/file; ls /made/new /relative; touch /data/n /data/s/n /made/new/n /target/inner/n /relative/n && echo written",
    )  # fmt: skip
    assert shown.stdout.decode().split("\n") == [
        "/data 2750 1000 2000", "/data/file 640 1001 2001", "/data/s 700 7 8", "/made/new 755 0 0", "/run/link/inner 711 5 6",
        "/relative 755 0 0", "1500000000", "text2", "/made/new:", "", "/relative:", "written", "",
    ]  # fmt: skip
    assert client.exec(container, "sh", "-c", "touch /made/x").exit_code == (1 if security else 0)


def test_each_container_has_its_own(client: _Volumes, pod: str) -> None:
    """What one writes the next one does not see, and neither does the image."""
    first = client.run(pod, "echo changed > /data/file; rm -r /data/s; touch /data/new; sleep 100", name="first")
    second = client.run(pod, "sleep 100", name="second")
    assert client.exec(second, "sh", "-c", "cat /data/file; ls /data").stdout.decode().split() == ["textfile", "l", "s"]
    assert sorted(client.kept()) == sorted([first, second])


def test_it_goes_with_its_container(client: _Volumes, pod: str) -> None:
    """However deep what was written into it is; a stopped one keeps it."""
    deep = "cd /data; i=0; while [ $i -lt 1500 ]; do mkdir d && cd d; i=$((i+1)); done; touch end"
    container = client.run(pod, deep)
    assert client.ended(container).exit_code == 0
    assert client.kept() == [container]
    client.remove(container)
    assert client.kept() == []
    client.remove(container)


@pytest.mark.parametrize("path", ["/data", "/data/", "//data/.", "/run/link/inner", "/target/inner"])
def test_a_mount_of_the_caller_takes_its_place(path: str, client: _Volumes, pod: str, tmp_path: Path) -> None:
    """At that path, however it is written or reached; the other volumes are there all the same."""
    (tmp_path / "callers").touch()
    container = client.run(pod, "sleep 100", mounts=[api.Mount(container_path=path, host_path=str(tmp_path))])
    assert client.exec(container, "ls", path).stdout.split() == [b"callers"]
    assert client.exec(container, "touch", "/made/new/n").exit_code == 0
    assert len(list((client.directory / container).iterdir())) == len(_VOLUMES) - 1


def test_a_mount_below_a_volume(client: _Volumes, pod: str, tmp_path: Path) -> None:
    """It lies in the volume, whichever was named first."""
    (tmp_path / "callers").touch()
    container = client.run(pod, "sleep 100", mounts=[api.Mount(container_path="/data/s", host_path=str(tmp_path))])
    assert client.exec(container, "ls", "/data/s").stdout.split() == [b"callers"]
    assert client.exec(container, "ls", "/data").stdout.split() == [b"file", b"l", b"s"]


@pytest.mark.parametrize("security", [{}, {"readonly_rootfs": True}])
def test_in_a_user_namespace_its_owners_are_the_images(security: dict[str, Any], client: _Volumes) -> None:
    """Inside; and root of the pod may write."""
    mapping = [api.IDMapping(container_id=0, host_id=_FIRST, length=_SIZE)]
    user = api.UserNamespace(mode=api.POD, uids=mapping, gids=mapping)
    options = api.NamespaceOption(pid=api.CONTAINER, userns_options=user)
    pod = client.pod("mapped", security_context=api.LinuxSandboxSecurityContext(namespace_options=options))
    try:
        context = api.LinuxContainerSecurityContext(namespace_options=options, **security)
        container = client.run(pod, "sleep 100", security=context)
        script = "stat -c '%n %a %u %g' /data /data/s /made/new; touch /data/n /made/new/n && stat -c '%u %g' /made/new/n"
        assert client.exec(container, "sh", "-c", script).stdout.decode().split("\n") == [
            "/data 2750 1000 2000", "/data/s 700 7 8", "/made/new 755 0 0", "0 0", "",
        ]  # fmt: skip
    finally:
        client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))
    assert client.kept() == []


@pytest.mark.parametrize(
    ("path", "message"),
    [("/", "'/' is the root itself"), ("", "'' is the root itself"), ("/a/..", "'/a/..' is the root itself"),
     ("/file", "'/file' is not a directory in the image"), ("/a\nb", "contains control characters"), ("/a\0b", "contains control characters")],
)  # fmt: skip
def test_a_volume_that_cannot_be_is_refused(path: str, message: str, client: _Volumes, pod: str) -> None:
    """InvalidArgument that says so, and nothing is left."""
    image = client.image("bad", {"/data": {}, path: {}})
    with pytest.raises(grpc.RpcError) as refused:
        client.create(pod, "true", image=image)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"the image's Volumes: {message}" in refused.value.details() or message in refused.value.details()
    assert client.kept() == []


def test_without_volumes_there_is_no_directory(client: _Volumes, pod: str) -> None:
    """Nothing is made, nothing is to be removed."""
    image = client.image("none", {})
    client.create(pod, "true", image=image)
    assert client.kept() == []
