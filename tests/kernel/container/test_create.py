"""What a program finds in its container."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from runtime_core.container import lsm
from runtime_core.container.create import create
from runtime_core.container.request import CreateRequest
from runtime_core.container.start import start
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from runtime_core.kernel import capabilities

from .conftest import Box, read_all


def test_program_runs_and_its_exit_status_comes_back(box: Box) -> None:
    """What the program returns is what waiting for the init gives."""
    assert box.run("/bin/sh", "-c", "exit 7").status == 7


def test_program_is_pid_one_with_a_hostname_of_its_own(box: Box) -> None:
    """New PID and UTS namespaces: PID 1, and the name of the spec."""
    assert box.shell("echo $$; hostname").lines == ["1", "box"]


def test_program_is_found_in_the_path_of_its_environment(box: Box) -> None:
    """argv[0] without a slash is looked for along PATH, inside the container."""
    box.process["env"] = ["PATH=/nowhere:/bin", "A=1", "A=2"]
    assert "A=2" in box.run("env").lines


@pytest.mark.parametrize("name", ["nope", "/nope", "/bin/nope/deeper"])
def test_missing_program_is_not_found(box: Box, name: str) -> None:
    """Start says that the program does not exist, by its name."""
    with pytest.raises(NotFound, match=f'exec "{name}": no such file or directory'):
        box.run(name)


def test_program_that_cannot_be_executed_is_denied(box: Box) -> None:
    """A file without the execute bit is a denied permission, not a missing file."""
    (box.image / "plain").write_text("x")
    with pytest.raises(PermissionDenied, match='exec "/plain": permission denied'):
        box.run("/plain")


def test_program_of_unknown_format_is_told(box: Box) -> None:
    """ENOEXEC comes back in words."""
    (box.image / "plain").write_text("x")
    (box.image / "plain").chmod(0o755)
    with pytest.raises(FailedPrecondition, match="exec format error"):
        box.run("/plain")


def test_created_container_waits_for_start(box: Box) -> None:
    """Create sets everything up and runs nothing."""
    box.process["args"] = ["/bin/touch", "/touched"]
    init = box.create()
    assert not (box.upper / "touched").exists()
    start(init)
    os.waitid(os.P_PID, init.pid, os.WEXITED | os.WNOWAIT)
    assert (box.upper / "touched").exists()


def test_start_of_a_dead_init_says_so(box: Box) -> None:
    """An init that was killed between create and start is a failed precondition."""
    init = box.create()
    os.kill(init.pid, 9)
    os.waitid(os.P_PID, init.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(FailedPrecondition):
        start(init)


def test_writes_go_to_the_upper_layer(box: Box) -> None:
    """The image is never written; the snapshot is."""
    assert box.shell("echo x > /etc/made").status == 0
    assert (box.upper / "etc" / "made").exists()
    assert not (box.image / "etc" / "made").exists()


def test_image_of_a_hundred_and_fifty_layers(box: Box) -> None:
    """No limit of a mount data page: layers are given one by one."""
    for number in range(150):
        layer = box.directory / f"layer{number:03}-{'x' * 100}"
        layer.mkdir()
        (layer / f"file{number}").write_text(str(number))
        (layer / "same").write_text(str(number))
        box.layers.insert(0, str(layer))
    assert box.shell("cat /file0 /file149; cat /same").stdout == "0149149"


def test_read_only_view_of_one_layer(box: Box) -> None:
    """A root without an upper layer is read-only, even with a single layer."""
    root = {**box.root(), "upper": "", "work": "", "read_only": True}
    assert "Read-only file system" in box.run("/bin/touch", "/x", root=root).stderr


def test_bind_root(box: Box) -> None:
    """A plain directory can be the root."""
    root = {"type": "bind", "source": str(box.image), "read_only": False}
    assert box.run("/bin/touch", "/x", root=root).status == 0
    assert (box.image / "x").exists()


def test_read_only_root_leaves_mounts_writable(box: Box) -> None:
    """root.readonly concerns the root alone."""
    box.spec["root"]["readonly"] = True
    finished = box.shell("touch /x; touch /dev/shm/x && echo written")
    assert "Read-only file system" in finished.stderr
    assert finished.lines == ["written"]


def test_default_devices_work(box: Box) -> None:
    """The devices of the runtime specification are there and the cgroup lets them be opened."""
    script = "echo x > /dev/null; head -c 2 /dev/zero | od -An -tx1; head -c 1 /dev/urandom > /dev/null && echo y; ls -l /dev"
    finished = box.shell(script)
    assert finished.lines[0].split() == ["00", "00"]
    assert finished.lines[1] == "y"
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        assert any(line.startswith("crw-rw-rw-") and line.endswith(" " + name) for line in finished.lines)
    for link in ("fd -> /proc/self/fd", "stdin -> /proc/self/fd/0", "ptmx -> pts/ptmx"):
        assert any(line.endswith(link) for line in finished.lines)


def test_devices_that_were_not_allowed_stay_closed(box: Box) -> None:
    """CAP_MKNOD may make any node, and opening it is still denied by default (GO-2022-0396)."""
    finished = box.shell("mknod /dev/kmsg2 c 1 11; cat /dev/kmsg2")
    assert "Operation not permitted" in finished.stderr


def test_configured_device_is_made_with_owner_and_mode(box: Box) -> None:
    """linux.devices: path, numbers, mode and owner are as asked for."""
    box.linux["devices"] = [
        {
            "path": "/dev/deep/fuse",
            "type": "c",
            "major": 10,
            "minor": 229,
            "fileMode": 0o640,
            "uid": 7,
            "gid": 8,
        }
    ]
    assert box.run("stat", "-c", "%a %u %g %t %T", "/dev/deep/fuse").lines == ["640 7 8 a e5"]


def test_device_outside_of_dev(box: Box) -> None:
    """A device may be asked for anywhere, and stays within the root."""
    (box.image / "link").symlink_to("../../../../../../../../tmp")
    box.linux["devices"] = [{"path": "/link/deep/zero", "type": "c", "major": 1, "minor": 5}]
    assert box.run("stat", "-c", "%F %t %T", "/tmp/deep/zero").lines == ["character special file 1 5"]
    assert not os.path.exists("/tmp/deep")


def test_pid_namespace_of_the_node(box: Box) -> None:
    """Without a PID namespace in the spec the container sees the node's processes; its end is still its own."""
    box.linux["namespaces"] = [entry for entry in box.linux["namespaces"] if entry["type"] != "pid"]
    assert box.run("/bin/test", "-d", f"/proc/{os.getpid()}").status == 0


def test_masked_and_read_only_paths(box: Box) -> None:
    """Masked files read as empty, masked directories are empty, read-only paths cannot be written."""
    script = "cat /proc/timer_list; ls -A /sys/firmware; touch /sys/firmware/x; echo 1 > /proc/sys/kernel/hostname"
    finished = box.shell(script)
    assert finished.stdout == ""
    assert finished.stderr.count("Read-only file system") >= 2


def test_masked_device_is_the_null_device(box: Box) -> None:
    """What covers a file is char 1:3 itself, whatever the image has at /dev/null (CVE-2025-31133)."""
    (box.image / "dev" / "null").symlink_to("/etc/secret")
    (box.image / "etc" / "secret").write_text("secret")
    box.linux["maskedPaths"] = ["/etc/masked"]
    (box.image / "etc" / "masked").write_text("hidden")
    assert box.run("stat", "-c", "%F %t %T", "/etc/masked").lines == ["character special file 1 3"]


def test_sys_is_read_only(box: Box) -> None:
    """sysfs with "ro" cannot be written."""
    assert "Read-only" in box.run("/bin/mkdir", "/sys/fs/cgroup/x").stderr


def test_cgroup_namespace_shows_the_container_as_root(box: Box) -> None:
    """The container's own cgroup is "/" and its limit is read below /sys/fs/cgroup."""
    directory = box.controller("memory")
    finished = box.shell(
        f"cat /proc/self/cgroup; cd {directory}; test -e memory.max && cat memory.max || cat memory.limit_in_bytes"
    )
    assert box.cgroups_of(finished.lines[:-1]) == {"/"}
    assert finished.lines[-1] == str(64 << 20)


def test_small_memory_limits_still_start(box: Box) -> None:
    """The interpreter that builds the container hardly counts: 4 MiB are enough to start."""
    box.linux["resources"]["memory"] = {"limit": 4 << 20}
    assert box.run("/bin/echo", "started").lines == ["started"]


def test_no_descriptor_is_inherited(box: Box) -> None:
    """The program has its three streams and nothing else (CVE-2024-21626)."""
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        finished = box.shell("ls /proc/self/fd")
    finally:
        os.close(leaked)
    assert finished.lines == ["0", "1", "2", "3"]  # 3 is ls's own


def test_signals_are_as_at_boot(box: Box) -> None:
    """Nothing is ignored or blocked, though Python ignores two signals."""
    finished = box.run("/bin/grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")
    assert [line.split()[1] for line in finished.lines] == ["0" * 16] * 2


def test_user_groups_and_umask(box: Box) -> None:
    """Ids, supplementary groups and umask are those of process.user."""
    box.process["user"] = {"uid": 1000, "gid": 2000, "additionalGids": [3000, 4000], "umask": 0o027}
    finished = box.shell("id -u; id -g; id -G; umask")
    assert finished.lines == ["1000", "2000", "2000 3000 4000", "0027"]


def test_user_may_reopen_its_streams(box: Box) -> None:
    """Pipes belong to the user, so that /dev/stdout can be opened by a program that is not root."""
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.process["args"] = ["/bin/sh", "-c", "echo out > /dev/stdout"]
    reader, writer = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    init = box.create((null, writer, writer))
    for descriptor in (null, writer):
        os.close(descriptor)
    start(init)
    assert os.read(reader, 100) == b"out\n"
    os.close(reader)


@pytest.mark.parametrize("uid", [-1, 2**31, 2**32, 2**32 - 1, 4294967296, "0", None, True, 1.0])
def test_ids_out_of_range_are_refused(box: Box, uid: object) -> None:
    """No id wraps round to 0 (CVE-2024-40635): anything but 0..2^31-1 is an error that names the field."""
    for field in ("uid", "gid"):
        box.process["user"] = {"uid": 0, "gid": 0, field: uid}
        with pytest.raises(InvalidArgument, match=f"process.user.{field}"):
            box.create()


def test_capabilities_are_exact_and_inheritable_is_empty(box: Box) -> None:
    """The sets are those of the spec; inheritable is empty whatever the spec says (CVE-2022-24769)."""
    sets = box.process["capabilities"]
    sets["inheritable"] = sets["bounding"]
    finished = box.run("/bin/grep", "^Cap", "/proc/self/status")
    found = {line.split()[0]: int(line.split()[1], 16) for line in finished.lines}
    wanted = capabilities.mask(sets["bounding"], "")
    assert found == {"CapInh:": 0, "CapPrm:": wanted, "CapEff:": wanted, "CapBnd:": wanted, "CapAmb:": 0}


def test_ambient_capabilities_reach_a_user(box: Box) -> None:
    """An ambient capability is effective for a program that is not root."""
    only = ["CAP_NET_BIND_SERVICE"]
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted", "ambient"), only)
    finished = box.run("/bin/grep", "^CapEff", "/proc/self/status")
    assert int(finished.stdout.split()[1], 16) == capabilities.mask(only, "")


def test_capability_that_the_machine_lacks_is_named(box: Box) -> None:
    """What cannot be given is an error at create, not a surprise at start."""
    missing = sorted({"CAP_" + name for name in capabilities.NAMES} - set(capabilities.machine()))
    if not missing:
        missing = ["CAP_NOPE"]
    box.process["capabilities"]["bounding"].append(missing[0])
    with pytest.raises((PermissionDenied, InvalidArgument), match=missing[0]):
        box.create()


def test_every_capability_of_the_machine_can_be_given(box: Box) -> None:
    """`capabilities.machine()` is what a privileged container asks for, and it works."""
    everything = capabilities.machine()
    box.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), everything)
    assert box.run("/bin/true").status == 0


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(box: Box, wanted: bool) -> None:
    """no_new_privs is set exactly when asked for."""
    box.process["noNewPrivileges"] = wanted
    finished = box.run("/bin/grep", "^NoNewPrivs", "/proc/self/status")
    assert finished.stdout.split()[1] == str(int(wanted))


def test_oom_score_is_set_or_clamped(box: Box) -> None:
    """A higher value is written; a lower one, without CAP_SYS_RESOURCE, leaves ours."""
    box.process["oomScoreAdj"] = 900
    assert box.run("/bin/cat", "/proc/self/oom_score_adj").stdout == "900\n"
    box.process["oomScoreAdj"] = -1000
    own = Path("/proc/self/oom_score_adj").read_text()
    assert box.run("/bin/cat", "/proc/self/oom_score_adj").stdout in (own, "-1000\n")


def test_rlimits(box: Box) -> None:
    """A limit is lowered; raising one without the right names it."""
    box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]
    assert box.shell("ulimit -n").stdout == "64\n"
    if "CAP_SYS_RESOURCE" not in capabilities.machine():
        box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 2**40, "hard": 2**40}]
        with pytest.raises(PermissionDenied, match="RLIMIT_NOFILE"):
            box.run("/bin/true")


def test_missing_working_directory_is_made(box: Box) -> None:
    """A working directory that the image lacks is made, in the container's own layer."""
    box.process["cwd"] = "/made/by/us"
    assert box.run("pwd").stdout == "/made/by/us\n"
    assert (box.upper / "made" / "by" / "us").is_dir()


def test_working_directory_that_is_a_file_is_refused(box: Box) -> None:
    """process.cwd must be a directory."""
    box.process["cwd"] = "/bin/busybox"
    with pytest.raises(InvalidArgument, match="process.cwd"):
        box.create()


def test_sysctls_of_own_namespaces(box: Box) -> None:
    """Namespaced sysctls are written, with either separator."""
    box.linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel/shmmni": "100"}
    finished = box.shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni")
    assert finished.lines == ["80", "100"]


@pytest.mark.parametrize("key", ["kernel.core_pattern", "vm.swappiness", "net/../kernel/core_pattern", "fs.mqueue.../x", ""])
def test_sysctls_of_the_machine_are_refused(box: Box, key: str) -> None:
    """Only what belongs to a namespace can be set (CVE-2022-0811), and no path leads elsewhere."""
    box.linux["sysctl"] = {key: "1"}
    with pytest.raises(InvalidArgument, match="sysctl"):
        box.create()


def test_terminal(box: Box) -> None:
    """With process.terminal the streams are a terminal of the container's own devpts, of the size asked for."""
    box.process.update(terminal=True, consoleSize={"height": 30, "width": 99})
    box.process["args"] = ["/bin/sh", "-c", "tty; stty size; stat -c %t /dev/console; test -t 0 && echo yes"]
    init = box.create()
    start(init)
    assert read_all(init.console).split() == ["/dev/pts/0", "30", "99", "88", "yes"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"args": []}, "process.args"),
        ({"args": ["/bin/true", "a\0b"]}, "process.args"),
        ({"env": ["A=\0"]}, "process.env"),
        ({"cwd": "/x\0"}, "process.cwd"),
        ({"cwd": "relative"}, "process.cwd"),
        ({"rlimits": [{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]}, "RLIMIT_NOPE"),
        ({"capabilities": {"bounding": ["CAP_NOPE"]}}, "process.capabilities.bounding.*CAP_NOPE"),
        ({"scheduler": {"policy": "SCHED_RR"}}, "process.scheduler"),
    ],
)
def test_what_is_wrong_with_the_process_is_named(box: Box, change: dict[str, object], field: str) -> None:
    """A bad value is an InvalidArgument that names its field, and no cgroup is left."""
    box.process.update(change)
    with pytest.raises(InvalidArgument, match=field):
        box.create()
    assert not box.cgroup_is_left()


def test_failure_inside_init_leaves_nothing(box: Box) -> None:
    """When a mount fails the error says which, and process and cgroup are gone."""
    box.add_mount("/x", "/nowhere/at/all", "rbind")
    with pytest.raises(NotFound, match=r"mounts\[7\].source: '/nowhere/at/all' does not exist"):
        box.create()
    assert not box.cgroup_is_left()


def test_container_dies_with_its_parent(box: Box) -> None:
    """PR_SET_PDEATHSIG holds through the change of user: no container outlives its monitor."""
    box.process["user"] = {"uid": 1000, "gid": 1000}
    reader, writer = os.pipe()
    monitor = os.fork()
    if monitor == 0:
        init = box.background()
        os.write(writer, str(init.pid).encode())
        os._exit(0)
    os.close(writer)
    pid = int(os.read(reader, 100))
    os.close(reader)
    pidfd = os.pidfd_open(pid)
    os.waitpid(monitor, 0)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    assert poller.poll(5000), "the container still runs"
    os.close(pidfd)


def test_joins_a_pid_namespace_by_path(box: Box) -> None:
    """linux.namespaces with a path: the pod's PID namespace, in which it is not PID 1."""
    first = Box(box.directory / "first", box.cgroups)
    try:
        init = first.background()
        for entry in box.linux["namespaces"]:
            if entry["type"] in ("pid", "network", "ipc", "uts"):
                kind = {"network": "net"}.get(entry["type"], entry["type"])
                entry["path"] = f"/proc/{init.pid}/ns/{kind}"
        finished = box.shell("echo $$; for f in self/ns/net self/ns/pid 1/exe; do readlink /proc/$f; done")
        assert finished.lines[0] != "1"
        assert finished.lines[1] == os.readlink(f"/proc/{init.pid}/ns/net")
        assert finished.lines[2] == os.readlink(f"/proc/{init.pid}/ns/pid")
        assert finished.lines[3].endswith("/bin/busybox")
        assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")
    finally:
        first.close()


def test_namespace_path_that_is_missing_is_named(box: Box) -> None:
    """A pod that has ended is an error that says which namespace."""
    box.linux["namespaces"][0]["path"] = "/proc/999999999/ns/pid"
    with pytest.raises(NotFound, match="linux.namespaces: '/proc/999999999/ns/pid' of type 'pid'"):
        box.create()


@pytest.mark.parametrize("name", ["", "..", "...", "a/b", ".x", "-x", "a\nb", "x" * 300])
def test_container_ids_are_plain_names(box: Box, name: str) -> None:
    """An id never is a path (crun's and runc's ids did become some)."""
    request = CreateRequest(
        id=name, spec=box.spec, root=box.root(), stdio=(0, 1, 2), seccomp=b"", cgroups=box.cgroups,
        cgroup_path=box.cgroup_path,
    )  # fmt: skip
    with pytest.raises(InvalidArgument, match="container id"):
        create(request)


def test_the_cgroup_of_a_container_is_the_one_named(box: Box) -> None:
    """The program is in its cgroup in every hierarchy (CVE-2025-47291)."""
    init = box.background()
    lines = Path(f"/proc/{init.pid}/cgroup").read_text().splitlines()
    assert box.cgroups_of(lines) == {box.cgroup_path}


def test_apparmor_profile_without_apparmor(box: Box) -> None:
    """A profile that cannot be enforced is an error, never silence."""
    box.process["apparmorProfile"] = "some-profile"
    if lsm.has_apparmor():
        with pytest.raises(NotFound, match="some-profile"):
            box.run("/bin/true")
    else:
        with pytest.raises(FailedPrecondition, match="process.apparmorProfile: 'some-profile'"):
            box.create()


def test_handlers_of_the_parent_do_not_run_in_the_init(box: Box) -> None:
    """A created container that gets a signal does nothing of its monitor's."""
    reader, writer = os.pipe()
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: os.write(writer, b"x"))
    try:
        init = box.create()
        os.kill(init.pid, signal.SIGUSR1)
        os.kill(init.pid, signal.SIGTERM)
        start(init)
    finally:
        signal.signal(signal.SIGUSR1, before)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
