"""A container of busybox for each test, and the promise that nothing of it is left on the host."""

from __future__ import annotations

import copy
import gc
import os
import secrets
import shutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Self

import pytest

from runtime_core.cgroups.detect import detect_version
from runtime_core.container import create as container_create
from runtime_core.container import exec as container_exec
from runtime_core.container.parent import Init, kill_child
from runtime_core.container.request import CreateRequest
from runtime_core.container.start import start
from runtime_core.kernel import syscalls
from runtime_core.registry import locate
from runtime_core.testing.namespaces import mount_namespace
from runtime_core.testing.tools import require_program

_CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
]  # fmt: skip
_MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


class Finished:
    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status, self.stdout, self.stderr = status, stdout, stderr

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


class Box:
    """One image, one cgroup; `spec` is the default Kubernetes container and may be changed before `create`."""

    def __init__(self, directory: Path, cgroups: Any) -> None:
        self.directory, self.cgroups, self._unified = directory, cgroups, detect_version() == "v2"
        self.cgroup_path = f"/trivet-test-{secrets.token_hex(4)}/box"
        self.image = directory / "image"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "data"):
            (self.image / name).mkdir(parents=True)
        shutil.copy(require_program("busybox", "busybox-static"), self.image / "bin" / "busybox")
        for name in _applets():
            (self.image / "bin" / name).symlink_to("busybox")
        for name in ("upper", "work"):
            (directory / "snapshot" / name).mkdir(parents=True)
        self.layers = [str(self.image)]
        self.seccomp = b""
        self.namespaces: dict[str, int] = {}
        self.spec = _default_spec()
        self._running: list[Init] = []

    @property
    def upper(self) -> Path:
        return self.directory / "snapshot" / "upper"

    @property
    def process(self) -> dict[str, Any]:
        return self.spec["process"]  # type: ignore[no-any-return]

    @property
    def linux(self) -> dict[str, Any]:
        return self.spec["linux"]  # type: ignore[no-any-return]

    def controller(self, name: str) -> str:
        """Where a container finds the files of one controller."""
        return "/sys/fs/cgroup" if self._unified else f"/sys/fs/cgroup/{name}"

    def cgroups_of(self, lines: list[str]) -> set[str]:
        """The paths in the lines of /proc/PID/cgroup, in the hierarchies that the driver uses."""
        return {line.split(":", 2)[2] for line in lines if self._unified or not line.startswith("0:")}

    def cgroup_is_left(self, path: str = "") -> bool:
        """Whether any hierarchy has its cgroup, or `path`; the machine says so, not the driver."""
        name = (path or self.cgroup_path)[1:]
        return any(list(Path("/sys/fs/cgroup").glob(where + name)) for where in ("", "*/"))

    def root(self) -> dict[str, Any]:
        snapshot = self.directory / "snapshot"
        return {
            "type": "overlay", "source": "", "lower": self.layers, "upper": str(snapshot / "upper"),
            "work": str(snapshot / "work"), "read_only": False,
        }  # fmt: skip

    def add_mount(self, destination: str, source: Path | str, *options: str, kind: str = "bind") -> None:
        self.spec["mounts"].append({"destination": destination, "type": kind, "source": str(source), "options": list(options)})

    def create(self, stdio: tuple[int, int, int] | None = None, root: dict[str, Any] | None = None) -> Init:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            made = container_create.create(
                CreateRequest(
                    id="box", spec=copy.deepcopy(self.spec), root=root or self.root(),
                    stdio=stdio or (null, null, null), seccomp=self.seccomp, cgroups=self.cgroups,
                    cgroup_path=self.cgroup_path, namespaces=self.namespaces,
                )
            )  # fmt: skip
        finally:
            os.close(null)
        self._running.append(made)
        return made

    def run(self, *command: str, root: dict[str, Any] | None = None) -> Finished:
        """Create, start, wait; what it wrote and how it ended."""
        if command:
            self.process["args"] = list(command)
        with _Streams(self.directory) as streams:
            init = self.create(streams.stdio, root)
            try:
                start(init)
            except BaseException:
                self.end(init)
                raise
            status = _wait(init.pid)
            self._running.remove(init)
            os.close(init.pidfd)
            self.cgroups.destroy(self.cgroup_path)
            return Finished(status, *streams.texts())

    def shell(self, script: str) -> Finished:
        return self.run("/bin/sh", "-c", script)

    def background(self) -> Init:
        """A started container that sleeps until the test ends."""
        self.process["args"] = ["/bin/sleep", "1000"]
        init = self.create()
        start(init)
        return init

    def execute(self, init: Init, *command: str, **process: Any) -> Finished:
        with _Streams(self.directory) as streams:
            executed = container_exec.execute(self.exec_request(init, streams.stdio, *command, **process))
            os.close(executed.pidfd)
            return Finished(_wait(executed.pid), *streams.texts())

    def exec_request(self, init: Init, stdio: tuple[int, int, int], *command: str, **process: Any) -> container_exec.ExecRequest:
        return container_exec.ExecRequest(
            init_pidfd=init.pidfd, process={**self.process, "args": list(command), **process}, stdio=stdio,
            seccomp=self.seccomp, cgroups=self.cgroups, cgroup_path=self.cgroup_path,
            user_namespace=self.namespaces.get("user", -1),
        )  # fmt: skip

    def end(self, init: Init) -> None:
        self._running.remove(init)
        init.channel.close()
        if init.console >= 0:
            os.close(init.console)
        kill_child(init.pid, init.pidfd)
        self.cgroups.destroy(self.cgroup_path)

    def close(self) -> None:
        for init in list(self._running):
            self.end(init)
        for descriptor in self.namespaces.values():
            os.close(descriptor)
        self.cgroups.destroy(self.cgroup_path.rpartition("/")[0])


class _Streams:
    """Files for stdout and stderr: nothing has to be drained while the program runs."""

    def __init__(self, directory: Path) -> None:
        self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._files = [(directory / name).open("w+b") for name in ("stdout", "stderr")]
        self.stdio = (self._null, self._files[0].fileno(), self._files[1].fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._null)
        for file in self._files:
            file.close()

    def texts(self) -> tuple[str, str]:
        for file in self._files:
            file.seek(0)
        return self._files[0].read().decode(), self._files[1].read().decode()


def read_all(console: int) -> str:
    """What a terminal says until its last user closes it, in however many pieces the kernel hands it over."""
    text = b""
    while True:
        try:
            chunk = os.read(console, 4096)
        except OSError:  # EIO: the last slave was closed
            return text.decode()
        text += chunk


@pytest.fixture(scope="session")
def cgroups() -> Any:
    """The driver that fits this machine, by its entry point, as the monitor gets it."""
    name = detect_version()
    return EntryPoint(name, locate("cgroup", name), "trivet.cgroup").load()()


@pytest.fixture
def box(tmp_path: Path, cgroups: Any) -> Iterator[Box]:
    """In a mount namespace whose mounts are shared, as a host's are: what escapes from a container shows."""
    gc.collect()
    with mount_namespace():
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SHARED)
        mounted, opened = _mounts(), _descriptors()
        made = Box(tmp_path, cgroups)
        try:
            yield made
        finally:
            made.close()
        gc.collect()
        assert not made.cgroup_is_left(made.cgroup_path.rpartition("/")[0]), "a cgroup is left"
        # The other way round says nothing: what other programs had mounted goes when they remove its directory.
        assert _mounts() - mounted == set(), "a mount is left"
        assert _descriptors() == opened, "a descriptor is left"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def _mounts() -> set[tuple[str, ...]]:
    """(id, id of the parent, device, root, mount point) of each; what follows them may change."""
    return {tuple(line.split()[:5]) for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def _descriptors() -> list[str]:
    """What is open here, but for pytest's own files and the listing itself."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return sorted(name for name in found if not name.startswith(("/proc/", "/tmp/pytest")))


def _wait(pid: int) -> int:
    _pid, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _applets() -> list[str]:
    return [
        "sh", "cat", "ls", "sleep", "id", "true", "false", "echo", "mount", "readlink", "stat", "touch", "grep",
        "hostname", "mkdir", "umask", "env", "pwd", "dd", "tty", "ps", "kill", "head", "od", "chown", "mknod", "test", "stty",
    ]  # fmt: skip


def _default_spec() -> dict[str, Any]:
    return {
        "ociVersion": "1.2.0",
        "root": {"path": "unused", "readonly": False},
        "hostname": "box",
        "process": {
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": {name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "mounts": [
            _own("/proc", "proc", "nosuid", "noexec", "nodev"),
            _own("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _own("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            _own("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            _own("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            _own("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            _own("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
        ],
        "linux": {
            "namespaces": [{"type": name} for name in ("pid", "mount", "network", "ipc", "uts", "cgroup")],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            "resources": {"memory": {"limit": 64 << 20}, "devices": [{"allow": False, "access": "rwm"}]},
        },
    }


def _own(destination: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}
