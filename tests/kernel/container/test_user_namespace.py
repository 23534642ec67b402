"""Containers in a user namespace: root inside is nobody outside, and the disk keeps the image's owners."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime_core.container import exec as container_exec
from runtime_core.container.start import start
from runtime_core.errors import InvalidArgument
from runtime_core.kernel import namespaces

from .conftest import Box, read_all

_FIRST = 1_000_000
_MAPPINGS = [(0, _FIRST, 65536)]


@pytest.fixture(params=["own", "pod"])
def mapped(box: Box, request: pytest.FixtureRequest) -> Box:
    """A box in a new user namespace; with "pod" it joins network, ipc and uts namespaces owned by it."""
    kinds = ("network", "ipc", "uts") if request.param == "pod" else ()
    box.namespaces = namespaces.create_in_user_namespace(kinds, _MAPPINGS, _MAPPINGS)
    box.linux["namespaces"].append({"type": "user"})
    return box


def test_root_is_mapped(mapped: Box) -> None:
    """Inside it is root with its capabilities; on the host it is an ordinary user."""
    finished = mapped.shell("id -u; id -g; cat /proc/self/uid_map; stat -c %u /proc/1")
    assert finished.lines[:2] == ["0", "0"]
    assert finished.lines[2].split() == ["0", str(_FIRST), "65536"]
    init = mapped.background()
    assert os.stat(f"/proc/{init.pid}").st_uid == _FIRST


def test_image_keeps_its_owners_on_disk(mapped: Box) -> None:
    """Files of the image show their owners inside, and what is written has the same owners on disk."""
    os.chown(mapped.image / "etc", 33, 44)
    finished = mapped.shell("stat -c '%u %g' /etc / /bin/busybox; touch /data/new; chown 5:6 /data/new; echo x >> /etc/y")
    assert finished.lines == ["33 44", "0 0", "0 0"]
    assert finished.stderr == ""
    made = (mapped.upper / "data" / "new").stat()
    assert (made.st_uid, made.st_gid) == (5, 6)
    assert (mapped.image / "etc").stat().st_uid == 33


def test_everything_default_is_mounted(mapped: Box) -> None:
    """/proc, /dev with its devices, /dev/pts, /sys and the cgroups are there and usable."""
    current = f"{mapped.controller('pids')}/pids.current"
    script = f"echo x > /dev/null; stat -c '%u %F' /dev/zero; ls /dev/pts; cat {current}; ls /sys/class/net"
    finished = mapped.shell(script)
    assert finished.stderr == ""
    assert finished.lines[:3] == ["0 character special file", "ptmx", "2"]


def test_devices_cannot_be_made(mapped: Box) -> None:
    """mknod is no right of a user namespace."""
    assert "Operation not permitted" in mapped.run("mknod", "/x", "c", "1", "3").stderr


def test_user_of_the_container(mapped: Box) -> None:
    """process.user is of the user namespace; its streams are its own."""
    mapped.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [7]}
    mapped.process["args"] = ["/bin/sh", "-c", "id -u > /dev/stdout; id -G > /dev/stdout"]
    reader, writer = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    init = mapped.create((null, writer, writer))
    os.close(null)
    os.close(writer)
    start(init)
    with open(reader) as file:
        assert file.read().split() == ["1000", "1000", "7"]


def test_idmapped_volume(mapped: Box, tmp_path: Path) -> None:
    """A volume with "idmap" shows the owners on disk; one without shows nobody's."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").touch()
    os.chown(volume / "file", 12, 13)
    mapped.add_mount("/mapped", volume, "rbind", "idmap")
    mapped.add_mount("/plain", volume, "rbind")
    finished = mapped.shell("stat -c '%u %g' /mapped/file /plain/file")
    assert finished.lines == ["12 13", "65534 65534"]


def test_volume_below_a_private_directory(mapped: Box, tmp_path: Path) -> None:
    """Sources are opened with the host's rights: kubelet's directories are root's alone."""
    private = tmp_path / "private"
    (private / "volume").mkdir(parents=True)
    private.chmod(0o700)
    (private / "volume" / "file").write_text("x")
    mapped.add_mount("/v", private / "volume", "rbind", "rprivate")
    assert mapped.run("/bin/cat", "/v/file").stdout == "x"


def test_exec(mapped: Box) -> None:
    """Exec enters the user namespace too."""
    init = mapped.background()
    finished = mapped.execute(init, "/bin/sh", "-c", "id -u; readlink /proc/self/ns/user; cat /proc/self/cgroup")
    assert finished.lines[:2] == ["0", os.readlink(f"/proc/{init.pid}/ns/user")]
    assert mapped.cgroups_of(finished.lines[2:]) == {"/"}


@pytest.mark.parametrize("uid", [0, 1000, 65535])
def test_streams_can_be_opened_again_in_exec_as_in_init(mapped: Box, uid: int) -> None:
    """/dev/stdin, /dev/stdout and /dev/stderr by name, as entry points and loggers do it, for root and for others."""
    script = "cat /dev/stdin > /dev/stdout; echo err > /dev/stderr; echo more >> /proc/self/fd/1"
    mapped.process["user"] = {"uid": uid, "gid": 1000}
    with _Pipes() as pipes:
        mapped.process["args"] = ["/bin/sh", "-c", script]
        start(mapped.create(pipes.theirs))
        assert pipes.said() == ("in\nmore\n", "err\n")
    mapped.process["user"] = {"uid": 5, "gid": 5}
    mapped.end(mapped._running[-1])
    init = mapped.background()
    with _Pipes() as pipes:
        user = {"uid": uid, "gid": 1000}
        executed = container_exec.execute(mapped.exec_request(init, pipes.theirs, "/bin/sh", "-c", script, user=user))
        assert pipes.said() == ("in\nmore\n", "err\n")
        os.close(executed.pidfd)
        assert os.waitpid(executed.pid, 0)[1] == 0


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_terminal_can_be_opened_again_in_exec_as_in_init(mapped: Box, uid: int) -> None:
    """Its owner is the process's user, so that /dev/stdout and /dev/tty open."""
    script = "stat -c %u $(tty); echo out > /dev/stdout; echo err > /dev/stderr; echo tty > /dev/tty; stty -echo < /dev/stdin"
    user = mapped.process["user"]
    mapped.process.update(terminal=True, args=["/bin/sh", "-c", script], user={"uid": uid, "gid": 1000})
    init = mapped.create()
    start(init)
    assert read_all(init.console).split() == [str(uid), "out", "err", "tty"]
    mapped.end(init)
    mapped.process.update(terminal=False, user=user)
    init = mapped.background()
    null = os.open("/dev/null", os.O_RDWR)
    request = mapped.exec_request(
        init, (null, null, null), "/bin/sh", "-c", script, terminal=True, user={"uid": uid, "gid": 1000}
    )
    executed = container_exec.execute(request)
    os.close(null)
    said = read_all(executed.console)
    os.close(executed.console)
    os.close(executed.pidfd)
    assert (said.split(), os.waitpid(executed.pid, 0)[1]) == ([str(uid), "out", "err", "tty"], 0)


def test_an_unmapped_user_is_refused_in_exec_too(mapped: Box) -> None:
    """By its id, and the failed process is reaped."""
    init = mapped.background()
    with pytest.raises(InvalidArgument, match="process.user.*70000"):
        mapped.execute(init, "/bin/true", user={"uid": 70000, "gid": 0})


class _Pipes:
    """Three pipes of the host's root, as the daemon makes them; "in" waits in the first."""

    def __enter__(self) -> _Pipes:
        stdin, self._out, self._err = os.pipe(), os.pipe(), os.pipe()
        self.theirs = (stdin[0], self._out[1], self._err[1])
        os.write(stdin[1], b"in\n")
        os.close(stdin[1])
        return self

    def said(self) -> tuple[str, str]:
        """All of standard output and standard error, once nobody holds them any more."""
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = ()  # type: ignore[assignment]
        with open(self._out[0]) as out, open(self._err[0]) as err:
            return out.read(), err.read()

    def __exit__(self, *_error: object) -> None:
        for descriptor in self.theirs:
            os.close(descriptor)


def test_terminal(mapped: Box) -> None:
    """A terminal works as it does without."""
    mapped.process.update(terminal=True, args=["/bin/sh", "-c", "tty"])
    init = mapped.create()
    start(init)
    assert os.read(init.console, 100).split() == [b"/dev/pts/0"]


def test_parent_is_the_caller(mapped: Box) -> None:
    """The init is the caller's child, whatever processes were in between; and dies with it."""
    init = mapped.background()
    assert int(Path(f"/proc/{init.pid}/stat").read_text().rpartition(")")[2].split()[1]) == os.getpid()


def test_unmapped_user_is_refused(mapped: Box) -> None:
    """An id that the namespace does not map is an error that names it."""
    mapped.process["user"] = {"uid": 70000, "gid": 0}
    with pytest.raises(InvalidArgument, match="process.user.*70000"):
        mapped.create()


def test_idmap_without_a_user_namespace_is_refused(box: Box, tmp_path: Path) -> None:
    """An option that cannot be honoured is an error."""
    box.add_mount("/v", tmp_path, "rbind", "idmap")
    with pytest.raises(InvalidArgument, match=r"mounts\[7\]"):
        box.create()
