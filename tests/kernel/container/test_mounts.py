"""The mounts of a container: options, propagation, and targets that somebody hostile has prepared."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime_core.container import create as container_create
from runtime_core.container.request import CreateRequest
from runtime_core.container.start import start
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, TrivetError
from runtime_core.kernel import mounts, syscalls

from .conftest import Box


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "volume"
    made.mkdir()
    (made / "file").write_text("content")
    return made


def test_bind_of_a_directory_and_of_a_file(box: Box, volume: Path) -> None:
    """Targets are made when the image lacks them, of the right kind."""
    box.add_mount("/a/b/dir", volume, "rbind", "rprivate")
    box.add_mount("/a/c/file", volume / "file", "bind")
    assert box.shell("cat /a/b/dir/file /a/c/file").stdout == "contentcontent"


def test_read_only_bind(box: Box, volume: Path) -> None:
    """ "ro" makes the mount read-only, and the host's directory stays writable."""
    box.add_mount("/v", volume, "rbind", "ro")
    assert "Read-only file system" in box.run("/bin/touch", "/v/x").stderr
    (volume / "y").touch()


def test_recursive_read_only_bind(box: Box, volume: Path) -> None:
    """ "rro" reaches the mounts below (KEP-3857); "ro" alone does not."""
    below = volume / "below"
    below.mkdir()
    tree = mounts.filesystem("tmpfs")
    target = os.open(below, os.O_PATH)
    mounts.attach(tree, target)
    os.close(tree)
    os.close(target)
    try:
        box.add_mount("/rro", volume, "rbind", "rro")
        box.add_mount("/ro", volume, "rbind", "ro")
        finished = box.shell("touch /rro/below/x; touch /ro/below/x && echo written")
        assert finished.stderr.count("Read-only file system") == 1
        assert finished.lines == ["written"]
    finally:
        mounts.unmount_below(str(below))


def test_mount_flags_are_visible_in_the_container(box: Box, volume: Path) -> None:
    """nosuid, nodev, noexec, noatime and tmpfs data arrive as they were asked for."""
    box.add_mount("/v", volume, "bind", "nosuid", "nodev", "noexec", "noatime")
    box.add_mount("/t", "tmpfs", "size=64k", "mode=700", "noexec", kind="tmpfs")
    finished = box.run("/bin/cat", "/proc/mounts")
    options = {line.split()[1]: set(line.split()[3].split(",")) for line in finished.lines}
    assert {"nosuid", "nodev", "noexec", "noatime"} <= options["/v"]
    assert {"noexec", "size=64k", "mode=700"} <= options["/t"]
    assert "nosuid" not in options["/t"]


def test_mounts_are_private_unless_asked(box: Box, volume: Path) -> None:
    """Without a propagation option nothing is shared with the host."""
    box.add_mount("/v", volume, "rbind")
    finished = box.run("/bin/cat", "/proc/self/mountinfo")
    for line in finished.lines:
        assert "shared:" not in line and "master:" not in line


@pytest.fixture
def shared(volume: Path) -> Any:
    """`volume` as a shared mount point of the host."""
    tree = mounts.bind(str(volume))
    target = os.open(volume, os.O_PATH)
    mounts.attach(tree, target)
    os.close(target)
    syscalls.mount_setattr(tree, propagation=syscalls.MS_SHARED)
    os.close(tree)
    yield volume
    mounts.unmount_below(str(volume))


def test_slave_volume_sees_later_host_mounts(box: Box, shared: Path) -> None:
    """HostToContainer: what the host mounts after the start appears in the container, never the reverse."""
    (shared / "sub").mkdir()
    box.add_mount("/v", shared, "rbind", "rslave")
    box.process["capabilities"] = {k: ["CAP_SYS_ADMIN"] for k in ("bounding", "effective", "permitted")}
    init = box.background()
    before = set(mounts.mounted())
    assert box.execute(init, "/bin/mount", "-t", "tmpfs", "x", "/v/sub").status == 0
    assert set(mounts.mounted()) <= before
    (shared / "later").mkdir()
    syscalls.mount("tmpfs", str(shared / "later"), "tmpfs")
    (shared / "later" / "file").touch()
    assert box.execute(init, "/bin/ls", "/v/later").lines == ["file"]
    mounts.unmount_below(str(shared / "later"))


def test_shared_volume_shows_container_mounts_to_the_host(box: Box, shared: Path) -> None:
    """Bidirectional: what the container mounts in the volume appears on the host."""
    (shared / "sub").mkdir()
    box.add_mount("/v", shared, "rbind", "rshared")
    box.process["capabilities"] = {k: ["CAP_SYS_ADMIN"] for k in ("bounding", "effective", "permitted")}
    init = box.background()
    assert box.execute(init, "/bin/mount", "-t", "tmpfs", "x", "/v/sub").status == 0
    assert str(shared / "sub") in mounts.mounted()
    mounts.unmount_below(str(shared / "sub"))


@pytest.mark.parametrize("mode", ["shared", "rshared", "slave", "rslave", "private", "rprivate"])
def test_root_propagation_never_shows_the_root_on_the_host(box: Box, shared: Path, mode: str) -> None:
    """Whatever linux.rootfsPropagation says, no mount of the container is on the host."""
    box.linux["rootfsPropagation"] = mode
    box.add_mount("/v", shared, "rbind", "rshared")
    before = set(mounts.mounted())
    box.background()
    assert set(mounts.mounted()) <= before


def test_unknown_root_propagation(box: Box) -> None:
    """An unknown mode is an error that names the field."""
    box.linux["rootfsPropagation"] = "sideways"
    with pytest.raises(InvalidArgument, match="linux.rootfsPropagation"):
        box.create()


def test_unknown_tmpfs_option_is_told_with_the_mount(box: Box) -> None:
    """What the file system refuses comes back with the mount and the file system's own words."""
    box.add_mount("/t", "tmpfs", "nonsense=1", kind="tmpfs")
    with pytest.raises(TrivetError, match=r"mounts\[7\]: mounting '/t' of tmpfs.*nonsense"):
        box.create()


@pytest.mark.parametrize("destination", ["", "/", "/..", "/a/../../b"])
def test_destinations_that_are_no_paths(box: Box, volume: Path, destination: str) -> None:
    """Empty, the root, and whatever has '..' are refused."""
    box.add_mount(destination, volume, "bind")
    with pytest.raises(InvalidArgument, match=r"mounts\[7\].destination"):
        box.create()


@pytest.mark.parametrize("link", ["/", "/host", "../../../../../..", "/proc/self/root", "/proc/1/root/host"])
def test_symlinked_destination_stays_in_the_root(box: Box, volume: Path, tmp_path: Path, link: str) -> None:
    """A destination through a symlink of the image never leaves the root (CVE-2021-30465, CVE-2019-18837)."""
    (box.image / "host").mkdir()
    (box.image / "link").symlink_to(link)
    escaped = Path("/trivet-test-escaped")
    box.add_mount("/link/trivet-test-escaped", volume, "bind")
    try:
        box.run("/bin/true")
    except TrivetError:
        pass  # a magic link is refused; both are right
    assert not escaped.exists()


def test_absolute_link_to_a_host_directory_is_of_the_image(box: Box, volume: Path, tmp_path: Path) -> None:
    """A link to a directory that exists on the host makes one in the image (CVE-2024-45310)."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (box.image / "link").symlink_to(outside)
    box.add_mount("/link/new/deep", volume, "bind")
    try:
        box.run("/bin/true")
    except TrivetError:
        pass  # the link dangles within the image
    assert list(outside.iterdir()) == []


def test_destination_that_is_renamed_during_create(box: Box, volume: Path, tmp_path: Path) -> None:
    """A race that swaps the target for a symlink cannot move a mount out (CVE-2021-30465)."""
    shared = tmp_path / "shared"
    (shared / "inside").mkdir(parents=True)
    (shared / "real").symlink_to("inside")
    # The swapping runs in a process: create must be called where there is one thread.
    swapper = os.fork()
    if swapper == 0:
        try:
            _swap_for_ever(shared / "real", ("inside", "/etc", "../../../../../../../etc"))
        finally:
            os._exit(1)
    try:
        box.add_mount("/shared", shared, "rbind")
        box.add_mount("/shared/real/below", volume, "bind")
        before = set(mounts.mounted())
        for _attempt in range(30):
            try:
                box.run("/bin/true")
            except TrivetError:
                continue
        assert set(mounts.mounted()) <= before
        assert not os.path.lexists("/etc/below")
    finally:
        os.kill(swapper, 9)
        os.waitpid(swapper, 0)


def _swap_for_ever(link: Path, targets: tuple[str, ...]) -> None:
    new = link.with_name("new")
    while True:
        for target in targets:
            new.symlink_to(target)
            new.rename(link)


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_must_be_real_directories(box: Box, name: str) -> None:
    """An image whose /proc or /sys is a symlink is refused (CVE-2019-19921, CVE-2025-54867)."""
    (box.image / name).rmdir()
    (box.image / "elsewhere").mkdir()
    (box.image / name).symlink_to("/elsewhere")
    with pytest.raises(InvalidArgument, match=f"'/{name}' of the image is not a real directory"):
        box.create()


def test_image_without_proc_and_sys_gets_them(box: Box) -> None:
    """Missing mount points are made."""
    for name in ("proc", "sys", "dev"):
        (box.image / name).rmdir()
    assert box.run("/bin/test", "-e", "/proc/self/status").status == 0


@pytest.mark.parametrize(
    ("destination", "kind"),
    [
        ("/proc", "bind"),
        ("/proc", "tmpfs"),
        ("//proc/.", "bind"),
        ("/proc/self", "bind"),
        ("/proc/sys", "tmpfs"),
    ],
)
def test_nothing_covers_procfs(box: Box, volume: Path, destination: str, kind: str) -> None:
    """A volume over /proc or in it is refused: labels and sysctls would go to a fake (CVE-2019-16884)."""
    box.add_mount(destination, volume if kind == "bind" else "tmpfs", kind=kind)
    with pytest.raises(InvalidArgument, match="proc"):
        box.create()


def test_link_into_procfs_is_no_way_around(box: Box, volume: Path) -> None:
    """Procfs is known by the file system of the target, not by its name."""
    (box.image / "p").symlink_to("/proc")
    box.add_mount("/p/sys", volume, "bind")
    with pytest.raises(InvalidArgument, match="within procfs"):
        box.create()


def test_the_host_procfs_may_be_bound_elsewhere_and_at_proc(box: Box) -> None:
    """Monitoring agents mount the node's /proc; a real procfs is allowed at /proc too."""
    box.add_mount("/host/proc", "/proc", "rbind", "ro")
    box.spec["mounts"][0] = {"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}
    assert box.run("/bin/test", "-d", f"/host/proc/{os.getpid()}").status == 0


def test_lxcfs_files_may_cover_proc_files(box: Box, volume: Path) -> None:
    """/proc/meminfo and its kind can be provided by a volume."""
    box.add_mount("/proc/meminfo", volume / "file", "bind")
    assert box.run("/bin/cat", "/proc/meminfo").stdout == "content"


def test_symlinked_dev_makes_nothing_outside(box: Box, tmp_path: Path) -> None:
    """An image whose /dev is a symlink gets no node made elsewhere (CVE-2026-41579)."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (box.image / "dev").rmdir()
    (box.image / "dev").symlink_to(outside)
    try:
        box.run("/bin/true")
    except TrivetError:
        pass
    assert list(outside.iterdir()) == []


def test_symlinked_dev_without_a_mount_is_refused(box: Box) -> None:
    """Without a /dev mount the devices go into the image's own directory, never through a link."""
    box.spec["mounts"] = [mount for mount in box.spec["mounts"] if not mount["destination"].startswith("/dev")]
    (box.image / "dev").rmdir()
    (box.image / "etc" / "sub").mkdir()
    (box.image / "dev").symlink_to("/etc/sub")
    with pytest.raises(InvalidArgument, match="'/dev' of the image is not a real directory"):
        box.create()


def test_without_a_dev_mount_the_image_gets_the_devices(box: Box) -> None:
    """The default devices are there in any case."""
    box.spec["mounts"] = [mount for mount in box.spec["mounts"] if not mount["destination"].startswith("/dev")]
    assert box.shell("echo x > /dev/null && stat -c %F /dev/zero").lines == ["character special file"]


def test_fake_device_in_the_image_is_refused(box: Box) -> None:
    """A regular file where the null device belongs is an error, not a null device (CVE-2026-88265)."""
    box.spec["mounts"] = [mount for mount in box.spec["mounts"] if not mount["destination"].startswith("/dev")]
    (box.image / "dev" / "null").write_text("")
    with pytest.raises(FailedPrecondition, match="device null of the image"):
        box.create()


def test_console_link_in_the_image_makes_no_file_on_the_host(box: Box, tmp_path: Path) -> None:
    """/dev/console as a symlink is not followed (CVE-2026-88264)."""
    target = tmp_path / "made-by-console"
    (box.image / "dev" / "console").symlink_to(target)
    box.process["terminal"] = True
    box.process["args"] = ["/bin/true"]
    init = box.create()  # /dev is a tmpfs of ours: the image's link is not seen at all
    start(init)
    assert not target.exists()


def test_working_directory_by_magic_link_is_refused(box: Box) -> None:
    """A cwd in /proc/self/fd leads nowhere: no descriptor of the host is left (CVE-2024-21626)."""
    held = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(3, 12):
            box.process["cwd"] = f"/proc/self/fd/{number}"
            with pytest.raises(TrivetError):
                box.create()
    finally:
        os.close(held)


def test_masked_paths_stay_in_the_root(box: Box, tmp_path: Path) -> None:
    """A masked path that is a symlink to a host file masks nothing of the host."""
    secret = tmp_path / "secret"
    secret.write_text("content")
    (box.image / "etc" / "link").symlink_to(secret)
    box.linux["maskedPaths"] = ["/etc/link"]
    box.linux["readonlyPaths"] = ["/etc/link"]
    box.background()
    assert secret.read_text() == "content"
    assert str(secret) not in mounts.mounted()


def test_source_that_is_no_path_is_refused(box: Box) -> None:
    """A relative source has no meaning in a daemon."""
    box.add_mount("/v", "relative", "bind")
    with pytest.raises(InvalidArgument, match=r"mounts\[7\].source"):
        box.create()


def test_source_that_is_missing_is_not_found(box: Box) -> None:
    """The error names field and path."""
    box.add_mount("/v", "/nowhere", "bind")
    with pytest.raises(NotFound, match=r"mounts\[7\].source: '/nowhere'"):
        box.create()


def test_cgroup_mount_is_read_only(box: Box) -> None:
    """Neither a controller's files nor the directory above can be written (CVE-2023-25809)."""
    pids = box.controller("pids")
    finished = box.shell(f"echo 1 > {pids}/cgroup.procs; mkdir /sys/fs/cgroup/x {pids}/y")
    assert finished.stderr.count("Read-only file system") == 3


def test_nothing_is_imported_in_the_container(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the root has changed Python opens no module, codec or library (docker's CVE-2019-14271).

    The audit hook of the forked init would fail the container.
    """

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if os.getpid() != 1:
            return
        name = str(arguments[0]) if arguments else ""
        if event == "import" or (event == "open" and name.endswith((".py", ".pyc", ".so"))):
            raise RuntimeError(f"{event} of {name} in the container")

    middle = os.fork()  # an audit hook cannot be taken back
    if middle == 0:
        status = 1
        try:
            sys.addaudithook(refuse)
            finished = box.run("/bin/true")
            box.process["args"] = ["/nope"]
            try:
                box.run()
            except NotFound:
                status = finished.status
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(middle, 0)[1]) == 0


def test_request_is_not_changed(box: Box) -> None:
    """The spec that came in is the caller's: create leaves it as it was."""
    before = copy.deepcopy(box.spec)
    request = CreateRequest(
        id="box", spec=box.spec, root=box.root(), stdio=(0, 1, 2), seccomp=b"", cgroups=box.cgroups,
        cgroup_path=box.cgroup_path,
    )  # fmt: skip
    init = container_create.create(request)
    box._running.append(init)
    assert box.spec == before
