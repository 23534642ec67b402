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
from runtime_core.kernel import mounts, namespaces, syscalls

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
    before = set(mounts.current_mount_points())
    assert box.execute(init, "/bin/mount", "-t", "tmpfs", "x", "/v/sub").status == 0
    assert set(mounts.current_mount_points()) <= before
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
    assert str(shared / "sub") in mounts.current_mount_points()
    mounts.unmount_below(str(shared / "sub"))


@pytest.mark.parametrize("mode", ["shared", "rshared", "slave", "rslave", "private", "rprivate"])
def test_root_propagation_never_shows_the_root_on_the_host(box: Box, shared: Path, mode: str) -> None:
    """Whatever linux.rootfsPropagation says, no mount of the container is on the host."""
    box.linux["rootfsPropagation"] = mode
    box.add_mount("/v", shared, "rbind", "rshared")
    before = set(mounts.current_mount_points())
    box.background()
    assert set(mounts.current_mount_points()) <= before


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


@pytest.fixture(params=["plain", "user namespace"])
def rooted(box: Box, request: pytest.FixtureRequest) -> Box:
    """A box whose targets are made with the host's rights, and one where they are made in a user namespace."""
    if request.param == "user namespace":
        mappings = [(0, 1_000_000, 65536)]
        box.namespaces = namespaces.create_in_user_namespace((), mappings, mappings)
        box.linux["namespaces"].append({"type": "user"})
    return box


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("link", "target", "destination", "made"),
    [
        (
            "etc/resolv.conf",
            "../run/systemd/resolve/stub-resolv.conf",
            "/etc/resolv.conf",
            "run/systemd/resolve/stub-resolv.conf",
        ),
        ("etc/hosts", "/gone/hosts", "/etc/hosts", "gone/hosts"),
        ("var", "gone/var", "/var/log/deep/file", "gone/var/log/deep/file"),
        ("etc/x", "../../../../../../../escaped", "/etc/x", "escaped"),
    ],
)
def test_a_target_behind_a_dangling_link_is_made_in_the_root(
    rooted: Box, volume: Path, link: str, target: str, destination: str, made: str, read_only: bool
) -> None:
    """As every image needs whose resolv.conf was systemd-resolved's; files, directories and tmpfs alike."""
    (rooted.image / link).symlink_to(target)
    (rooted.image / "dir").symlink_to("gone-dir/a")
    (rooted.image / "tmpfs").symlink_to("/gone-tmpfs")
    rooted.spec["root"]["readonly"] = read_only
    volume.joinpath("file").chmod(0o644)
    rooted.add_mount(destination, volume / "file", "bind")
    rooted.add_mount("/dir/b", volume, "bind")
    rooted.add_mount("/tmpfs", "tmpfs", "size=64k", kind="tmpfs")
    finished = rooted.shell(f"cat {destination} /{made} /dir/b/file; touch /tmpfs/x && stat -c %n /gone-tmpfs/x")
    assert (finished.stdout, finished.stderr) == ("content" * 3 + "/gone-tmpfs/x\n", "")
    assert not Path("/escaped").exists() and not Path("/gone").exists()


@pytest.mark.parametrize(
    ("destination", "source", "reason"),
    [
        ("/bin/sh", "", "a directory cannot be mounted on a file|not a directory"),
        ("/dev/null", "", "a directory cannot be mounted on a file|not a directory"),
        ("/bin/busybox/below", "", "not a directory"),
        ("/bin/busybox/below", "file", "not a directory"),
        ("/to-file/below", "file", "not a directory"),
        ("/etc", "file", "a file cannot be mounted on a directory"),
        ("/sys", "file", "a file cannot be mounted on a directory"),
        ("/to-root", "", "the root itself"),
        ("/to-root/.", "file", "the root itself"),
        ("/", "file", "the root itself"),
        ("/proc", "file", "only procfs"),
        ("/to-proc", "", "within procfs"),
        ("/circle", "file", "in a circle"),
        ("/circle/below", "", "in a circle"),
        ("/sys/nothing", "", "read-only file system"),
        ("/" + "x" * 300, "", "too long"),
    ],
)
def test_a_destination_that_cannot_be_names_both_paths(
    rooted: Box, volume: Path, destination: str, source: str, reason: str
) -> None:
    """The caller's mistake, and told as one."""
    for name, target in {"to-file": "bin/busybox", "to-root": "/", "to-proc": "proc", "circle": "circle"}.items():
        (rooted.image / name).symlink_to(target)
    rooted.add_mount(destination, volume / source, "bind")
    with pytest.raises(InvalidArgument, match=reason) as refused:
        rooted.create()
    assert str(refused.value).startswith("mounts[7].destination: mounting ")
    assert repr(str(volume / source)) in str(refused.value)
    assert destination.rstrip("/.") in str(refused.value)


@pytest.mark.parametrize(
    ("mount", "destination"),
    [
        (("tmpfs", "tmpfs"), "/bin/sh"),
        (("proc", "proc"), "/bin/sh/x"),
        (("cgroup", "cgroup"), "/bin/sh"),
        (("mqueue", "m"), "/circle"),
    ],
)
def test_other_file_systems_are_no_exception(box: Box, mount: tuple[str, str], destination: str) -> None:
    """What the kernel makes is mounted on directories too."""
    (box.image / "circle").symlink_to("circle")
    box.add_mount(destination, mount[1], kind=mount[0])
    with pytest.raises(InvalidArgument, match=rf"mounts\[7\].destination: mounting '{destination}' of {mount[0]}: "):
        box.create()


@pytest.mark.parametrize(
    ("source", "reason"), [("file/x", "not a directory"), ("circle", "in a circle"), ("x" * 300, "too long")]
)
def test_a_source_that_cannot_be_is_named(box: Box, volume: Path, source: str, reason: str) -> None:
    """A path through a file is the caller's mistake as well."""
    (volume / "circle").symlink_to("circle")
    box.add_mount("/v", volume / source, "bind")
    with pytest.raises(InvalidArgument, match=rf"mounts\[7\].source: .*{reason}"):
        box.create()


def test_two_mounts_whose_targets_one_dangling_link_makes(box: Box, volume: Path) -> None:
    """The second finds what was made for the first."""
    (box.image / "link").symlink_to("/gone/deep")
    box.add_mount("/link/a", volume / "file", "bind")
    box.add_mount("/link/b", volume, "bind")
    assert box.shell("cat /gone/deep/a /link/b/file").stdout == "contentcontent"


@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
def test_hidden_paths_on_links(rooted: Box, field: str) -> None:
    """What a link leads to is hidden, what leads nowhere is left alone, and a circle or the root is refused."""
    (rooted.image / "etc" / "secret").write_text("secret")
    for name, target in {"to-secret": "../etc/secret", "dangling": "gone", "circle": "circle", "to-root": "/"}.items():
        (rooted.image / "etc" / name).symlink_to(target)
    rooted.linux[field] = ["/etc/to-secret", "/etc/dangling", "/etc/dangling/x", "/etc/secret/x"]
    finished = rooted.shell("cat /etc/secret; echo x > /etc/secret; test -e /gone || echo none; cat /etc/secret")
    assert finished.stdout == {"maskedPaths": "none\n", "readonlyPaths": "secretnone\nsecret"}[field]
    for path, reason in (
        ("/etc/circle", "in a circle"),
        ("/proc/self/root/etc", "procfs"),
        ("/", "root"),
        ("/etc/to-root", "root"),
    ):
        rooted.linux[field] = [path]
        with pytest.raises(InvalidArgument, match=rf"linux.{field}: '{path}': .*{reason}"):
            rooted.create()


@pytest.mark.parametrize("directory", ["/circle", "/circle/x", "/bin/busybox", "/bin/busybox/x", "/to-file", "/" + "x" * 300])
def test_a_working_directory_that_cannot_be(rooted: Box, directory: str) -> None:
    """A circle, a file and what is below one; with the field and the path."""
    (rooted.image / "circle").symlink_to("circle")
    (rooted.image / "to-file").symlink_to("bin/busybox")
    rooted.process["cwd"] = directory
    with pytest.raises(InvalidArgument, match=f"process.cwd: '{directory}'"):
        rooted.create()


def test_a_working_directory_behind_a_dangling_link_is_made(rooted: Box) -> None:
    """In the root, and below it what is missing."""
    (rooted.image / "srv").symlink_to("../gone/srv")
    rooted.process["cwd"] = "/srv/app/x"
    assert rooted.run("/bin/pwd", "-P").lines == ["/gone/srv/app/x"]


def test_devices_behind_links(box: Box) -> None:
    """Elsewhere than in /dev a link of the image leads on, within the root; a file in the way is the caller's mistake."""
    for name, target in {"nodes": "/gone/nodes", "zero": "gone/zero", "circle": "circle"}.items():
        (box.image / name).symlink_to(target)
    box.linux["devices"] = [_null("/nodes/a"), _null("/zero"), _null("/dev/sub/b"), {**_null("/dev//zero"), "fileMode": 0o600}]
    finished = box.shell("stat -c '%F %t:%T' /gone/nodes/a /gone/zero /dev/sub/b /dev/zero; stat -c %a /dev/zero")
    assert finished.lines == ["character special file 1:3"] * 4 + ["600"]
    for path in ("/bin/busybox/x", "/dev/null/x", "/circle", "/circle/x", "/", "/dev/", "/a/../b", "/" + "x" * 300):
        box.linux["devices"] = [_null(path)]
        with pytest.raises(InvalidArgument, match=f"linux.devices: '{path}"):
            box.create()
    box.linux["devices"] = [_null("/bin/busybox")]
    with pytest.raises(FailedPrecondition, match="/bin/busybox"):
        box.create()


def _null(path: str) -> dict[str, Any]:
    return {"path": path, "type": "c", "major": 1, "minor": 3}


@pytest.mark.parametrize("kind", ["file", "circle"])
def test_an_image_whose_dev_is_none(box: Box, kind: str) -> None:
    """With a mount at /dev and without, it is said in words."""
    (box.image / "dev").rmdir()
    if kind == "file":
        (box.image / "dev").touch()
    else:
        (box.image / "dev").symlink_to("dev")
    with pytest.raises(InvalidArgument, match="'/dev'"):
        box.create()
    box.spec["mounts"] = [mount for mount in box.spec["mounts"] if not mount["destination"].startswith("/dev")]
    with pytest.raises(InvalidArgument, match="'/dev' of the image is not a real directory"):
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
        before = set(mounts.current_mount_points())
        for _attempt in range(30):
            try:
                box.run("/bin/true")
            except TrivetError:
                continue
        assert set(mounts.current_mount_points()) <= before
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
    assert str(secret) not in mounts.current_mount_points()


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
