"""Exec: a second process sees the container, and the container sees nothing of ours."""

from __future__ import annotations

import os
import time

import pytest

from runtime_core.container import exec as container_exec
from runtime_core.container.start import start
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied

from .conftest import Box, read_all


def test_output_and_status_come_back(box: Box) -> None:
    """Both streams and the exit status are the program's."""
    init = box.background()
    finished = box.execute(init, "/bin/sh", "-c", "echo out; echo err >&2; exit 5")
    assert (finished.status, finished.stdout, finished.stderr) == (5, "out\n", "err\n")


def test_it_is_in_all_namespaces_of_the_container(box: Box) -> None:
    """Every namespace, the cgroup in every hierarchy, and the root are the container's."""
    init = box.background()
    script = "for n in pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup; ls /"
    lines = box.execute(init, "/bin/sh", "-c", script).lines
    assert lines[:6] == [os.readlink(f"/proc/{init.pid}/ns/{n}") for n in ("pid", "mnt", "net", "ipc", "uts", "cgroup")]
    assert box.cgroups_of([line for line in lines[6:] if ":" in line]) == {"/"}
    assert "etc" in lines


def test_our_own_children_stay_ours(box: Box) -> None:
    """The PID namespace is joined for that one child only."""
    init = box.background()
    box.execute(init, "/bin/true")
    assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")


@pytest.mark.parametrize("name", ["nope", "/nope"])
def test_missing_program(box: Box, name: str) -> None:
    """NotFound with the name, and the failed process is reaped."""
    init = box.background()
    with pytest.raises(NotFound, match=f'exec "{name}": no such file or directory'):
        box.execute(init, name)


def test_program_without_permission(box: Box) -> None:
    """EACCES is PermissionDenied."""
    init = box.background()
    with pytest.raises(PermissionDenied):
        box.execute(init, "/etc")


@pytest.mark.parametrize(("directory", "kind"), [("/circle", InvalidArgument), ("/bin/busybox/x", InvalidArgument),
                                                 ("/bin/busybox", InvalidArgument), ("/" + "x" * 300, InvalidArgument),
                                                 ("/gone", NotFound)])  # fmt: skip
def test_a_working_directory_that_cannot_be(box: Box, directory: str, kind: type[Exception]) -> None:
    """The container may have changed it meanwhile; the error names it."""
    (box.image / "circle").symlink_to("circle")
    init = box.background()
    with pytest.raises(kind, match=f"process.cwd: '{directory}'"):
        box.execute(init, "/bin/true", cwd=directory)


def test_container_that_has_ended(box: Box) -> None:
    """A dead init is a failed precondition."""
    init = box.background()
    os.kill(init.pid, 9)
    os.waitid(os.P_PID, init.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(FailedPrecondition):
        box.execute(init, "/bin/true")


def test_it_leads_a_session_and_has_no_other_descriptor(box: Box) -> None:
    """setsid, so that its descendants can be found; nothing inherited but the streams."""
    init = box.background()
    finished = box.execute(
        init,
        "/bin/sh",
        "-c",
        "test $(cut -d' ' -f6 /proc/self/stat 2>/dev/null || echo $$) ; ls /proc/self/fd",
    )
    assert finished.lines == ["0", "1", "2", "3"]


def test_inheritable_capabilities_are_empty(box: Box) -> None:
    """CVE-2022-29162: exec had them in every peer."""
    init = box.background()
    assert "CapInh:\t0000000000000000" in box.execute(init, "/bin/cat", "/proc/self/status").lines


def test_missing_working_directory(box: Box) -> None:
    """Exec makes no directory; a cwd that is not there is NotFound."""
    init = box.background()
    with pytest.raises(NotFound, match="process.cwd"):
        box.execute(init, "/bin/true", cwd="/missing")


@pytest.mark.parametrize("number", range(3, 14))
def test_working_directory_by_magic_link_is_refused(box: Box, number: int) -> None:
    """CVE-2024-21626 by exec --cwd: no descriptor leads out."""
    held = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    init = box.background()
    try:
        with pytest.raises((NotFound, InvalidArgument, FailedPrecondition)):
            box.execute(init, "/bin/true", cwd=f"/proc/self/fd/{number}")
    finally:
        os.close(held)


@pytest.mark.parametrize("uid", [-1, 2**31, 2**32, 2147483648000])
def test_ids_do_not_wrap_round(box: Box, uid: int) -> None:
    """`exec --user 4294967296` is refused, not root."""
    init = box.background()
    with pytest.raises(InvalidArgument, match="process.user.uid"):
        box.execute(init, "/bin/id", user={"uid": uid, "gid": 0})


def test_terminal(box: Box) -> None:
    """A terminal of the container's devpts, owned by the user."""
    init = box.background()
    null = os.open("/dev/null", os.O_RDWR)
    request = box.exec_request(
        init, (null, null, null), "/bin/sh", "-c", "tty; stat -c %u $(tty)", terminal=True,
        user={"uid": 1000, "gid": 5}, consoleSize={"height": 10, "width": 20},
    )  # fmt: skip
    executed = container_exec.execute(request)
    os.close(null)
    assert read_all(executed.console).split() == ["/dev/pts/0", "1000"]
    os.waitpid(executed.pid, 0)
    os.close(executed.console)
    os.close(executed.pidfd)


def test_container_cannot_look_into_us(box: Box) -> None:
    """While a process of ours is in the container's namespaces, its memory and program are out of reach:
    it is not dumpable until it has become the program (CVE-2019-5736)."""
    box.process["capabilities"] = {name: [] for name in ("bounding", "effective", "permitted")}
    look = 'e=$(readlink $p/exe) && case $e in */busybox) ;; *) echo "$e" >> /tmp/seen ;; esac'
    script = f"touch /tmp/seen; while :; do for p in /proc/[0-9]*; do {look}; done; done"
    box.process["args"] = ["/bin/sh", "-c", script]
    init = box.create()
    start(init)
    for _attempt in range(30):
        box.execute(init, "/bin/true")
    assert (box.upper / "tmp" / "seen").read_text() == ""


def test_thousand_times_flat(box: Box) -> None:
    """Many execs leave no descriptor and no child (the fixture looks)."""
    init = box.background()
    began = time.monotonic()
    for _attempt in range(200):
        box.execute(init, "/bin/true")
    assert time.monotonic() - began < 20


def test_small_memory_limits_still_exec(box: Box) -> None:
    """The interpreter in between hardly counts against the container's limit."""
    box.linux["resources"]["memory"] = {"limit": 4 << 20}
    init = box.background()
    assert box.execute(init, "/bin/echo", "x").lines == ["x"]
