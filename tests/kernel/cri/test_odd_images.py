"""Images as people build them: links that lead nowhere, short passwd lines, and mounts that cannot be, through gRPC alone."""

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

_LINKS = {
    "etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
    "etc/hosts": "/gone/hosts",
    "dev/termination-log": "../gone/log",
    "var/run": "/run",
    "circle": "circle",
    "srv": "gone/srv",
}
_PASSWD = "# the image's users\n\nroot:x:0:0::/root:/bin/sh\r\napp:x:1001:1001\r\nshort:x:1002\n+::::::\n"
_GROUP = "root:x:0\nstaff:x:50:app\nbroken:x:none:app\n"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    registry, node = Registry(), DemoNode()
    try:
        reference = registry.put_image("t/odd", "1", [demo_image.build_layer(), _odd_layer()], {"Env": ["PATH=/bin"]})
        node.start()
        client = Client(node, reference)
        client.images.PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)))
        yield client
    finally:
        node.close()
        registry.close()


def _odd_layer() -> tuple[bytes, bytes, str]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, target in _LINKS.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
        for name, text in (("etc/passwd", _PASSWD), ("etc/group", _GROUP)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o644
            archive.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue(), 1), buffer.getvalue(), demo_image.LAYER_TYPE


def _mapped() -> Any:
    mappings = [api.IDMapping(container_id=0, host_id=2_000_000, length=65536)]
    return api.NamespaceOption(pid=api.CONTAINER, userns_options=api.UserNamespace(mode=api.POD, uids=mappings, gids=mappings))


@pytest.mark.parametrize("options", [api.NamespaceOption(pid=api.CONTAINER), _mapped()], ids=["plain", "user namespace"])
@pytest.mark.parametrize("read_only", [False, True])
def test_an_image_whose_links_lead_nowhere_starts(client: Client, options: Any, read_only: bool, tmp_path: Path) -> None:
    """Our own files, the kubelet's and a volume are where the links say, and the working directory is made."""
    pod = client.pod("odd", security_context=api.LinuxSandboxSecurityContext(namespace_options=options))
    try:
        (tmp_path / "log").write_text("termination\n")
        tmp_path.chmod(0o755)  # what is not mapped must be open to everybody
        mounts = [
            api.Mount(container_path="/dev/termination-log", host_path=str(tmp_path / "log")),
            api.Mount(container_path="/var/run/secrets/token", host_path=str(tmp_path)),
        ]
        security = api.LinuxContainerSecurityContext(namespace_options=options, readonly_rootfs=read_only)
        script = (
            "cat /etc/resolv.conf > /dev/null && cat /run/systemd/resolve/stub-resolv.conf > /dev/null && "
            "cat /gone/hosts > /dev/null && cat /run/secrets/token/log /dev/termination-log && pwd -P"
        )
        container = client.run(pod, script, security=security, mounts=mounts, working_dir="/srv/app")
        assert client.ended(container).exit_code == 0
        assert client.contents() == ["termination", "termination", "/gone/srv/app"]
    finally:
        client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))
        (client.logs / "c.log").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("container_path", "source", "reason"),
    [
        ("/bin/sh", "", "a directory cannot be mounted on a file|not a directory"),
        ("/dev/null", "", "not a directory"),
        ("/bin/sh/below", "file", "not a directory"),
        ("/bin", "file", "a file cannot be mounted on a directory"),
        ("/proc", "", "only procfs"),
        ("/proc/sys/x", "", "proc"),
        ("/proc/x/y", "", "nothing can be made"),
        ("/dev/pts/x", "", "nothing can be made"),
        ("/circle/x", "", "in a circle"),
        ("/sys/x", "", "read-only"),
    ],
)
def test_a_mount_that_cannot_be(client: Client, pod: str, container_path: str, source: str, reason: str, tmp_path: Path) -> None:
    """INVALID_ARGUMENT with both paths."""
    (tmp_path / "file").touch()
    mount = api.Mount(container_path=container_path, host_path=str(tmp_path / source))
    with pytest.raises(grpc.RpcError, match=reason) as refused:
        client.create(pod, "true", mounts=[mount])
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert container_path in refused.value.details() and str(tmp_path / source) in refused.value.details()


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"working_dir": "/circle"}, "process.cwd: '/circle'"),
        ({"working_dir": "/circle/x"}, "process.cwd: '/circle/x'"),
        ({"working_dir": "/bin/sh"}, "process.cwd: '/bin/sh'"),
        ({"working_dir": "/bin/sh/x"}, "process.cwd: '/bin/sh/x'"),
        ({"mounts": [api.Mount(container_path="/x", host_path="/etc/passwd/x")]}, "config.mounts[0].host_path: '/etc/passwd/x'"),
        ({"mounts": [api.Mount(container_path="/x", host_path="/" + "x" * 256)]}, "config.mounts[0].host_path: '/xxx"),
        ({"mounts": [api.Mount(container_path="/" + "x" * 256, host_path="/tmp")]}, "config.mounts[0].container_path: '/xxx"),
        ({"security": api.LinuxContainerSecurityContext(masked_paths=["/circle"])}, "linux.maskedPaths: '/circle'"),
        ({"security": api.LinuxContainerSecurityContext(readonly_paths=["/"])}, "linux.readonlyPaths: '/'"),
    ],
)
def test_a_path_that_cannot_be(client: Client, pod: str, config: dict[str, Any], field: str) -> None:
    """INVALID_ARGUMENT with the field."""
    with pytest.raises(grpc.RpcError) as refused:
        client.create(pod, "true", **config)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in refused.value.details()


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({"run_as_username": "app"}, "uid=1001 gid=1001 groups=1001,50"),
        ({"run_as_user": api.Int64Value(value=1001)}, "uid=1001 gid=1001 groups=1001,50"),
        ({"run_as_username": "short"}, "uid=1002 gid=0"),
        ({"run_as_user": api.Int64Value(value=1002)}, "uid=1002 gid=0"),
        ({"run_as_user": api.Int64Value(value=4000)}, "uid=4000 gid=0"),
    ],
)
def test_short_lines_of_passwd(client: Client, pod: str, security: dict[str, Any], said: str) -> None:
    """The container's own process, and who ExecSync runs."""
    context = api.LinuxContainerSecurityContext(**security)
    container = client.run(pod, "exec sleep 1234", security=context)
    identity = client.exec(container, "id").stdout.decode().replace("(root)", "").replace("(app)", "").replace("(staff)", "")
    uid, gid, *groups = identity.replace("(short)", "").split()
    expected = said.split()
    assert [uid, gid] == expected[:2]
    if len(expected) > 2:
        assert set(groups[0].removeprefix("groups=").split(",")) == set(expected[2].removeprefix("groups=").split(","))
