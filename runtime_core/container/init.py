"""The child's side of a container: from the fork to the exec of the program.

Nothing here imports, looks up a codec or asks NSS: after the root has changed, any file
that Python opened by name would be the container's.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios

from runtime_core.container import messages, rootfs
from runtime_core.container.credentials import Credentials
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, TrivetError
from runtime_core.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_SIGKILL = 9
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Step:
    """Where a child is, so that its failure can say so."""

    __slots__ = ("doing",)

    def __init__(self) -> None:
        self.doing = "starting"


def run(channel: socket.socket, spec: dict[str, Any], root: dict[str, Any], seccomp: bytes, stdio: tuple[int, int, int]) -> None:
    """Set the container up, wait for START, execute. Never returns."""
    step = Step()
    try:
        _run(step, channel, spec, root, seccomp, stdio)
    except Exception as error:  # noqa: BLE001  the edge of a process: the parent raises it again
        messages.send_failure(channel, error, step.doing)
    os._exit(127)


def _run(
    step: Step,
    channel: socket.socket,
    spec: dict[str, Any],
    root: dict[str, Any],
    seccomp: bytes,
    stdio: tuple[int, int, int],
) -> None:
    # A created container may wait for long: it must not hold its monitor's other descriptors.
    syscalls.close_all_except({channel.fileno(), *stdio})
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)
    process = spec["process"]
    credentials = Credentials(process, seccomp)
    program = Program(process)
    null = rootfs.host_null()
    os.setsid()
    syscalls.new_session_keyring("trivet")
    _expect(channel, messages.JOINED)
    step.doing = "entering namespaces"
    new = {n["type"] for n in spec["linux"].get("namespaces") or () if not n.get("path")}
    if "cgroup" in new:
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    step.doing = "setting the hostname"
    if "uts" in new and spec.get("hostname"):
        name = spec["hostname"].encode()
        syscalls.sethostname(name, len(name))
    step.doing = "building the root file system"
    if "mount" in new:
        rootfs.enter(root, spec, null)
    os.close(null)
    step.doing = "setting sysctls"
    write_sysctls(spec["linux"].get("sysctl") or {})
    console = ()
    if process.get("terminal"):
        step.doing = "opening the terminal"
        console = (_open_console(process.get("consoleSize") or {}, own_dev="mount" in new),)
    else:
        take_stdio(stdio)
    step.doing = "taking on the user"
    program.enter_directory()
    messages.send(channel, messages.CREATED, b"", console)
    for descriptor in console:
        os.close(descriptor)
    _expect(channel, messages.START)
    credentials.apply()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)  # after the credentials: a change of them clears it
    syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
    program.execute()


class Program:
    """What is executed: arguments, environment, directory; checked before the fork matters."""

    __slots__ = ("arguments", "directory", "environment", "search")

    def __init__(self, process: dict[str, Any]) -> None:
        self.arguments: list[str] = process.get("args") or []
        if not self.arguments:
            raise InvalidArgument("process.args is empty: neither the container nor its image names a program")
        self.directory = process.get("cwd") or "/"
        entries = process.get("env") or []
        for field, values in (("process.args", self.arguments), ("process.env", entries)):
            if any("\0" in value for value in values):
                raise InvalidArgument(f"{field} contains a NUL character")
        self.environment = dict(entry.partition("=")[::2] for entry in entries)
        self.search = self.environment.get("PATH", _DEFAULT_PATH)

    def enter_directory(self) -> None:
        try:
            os.chdir(self.directory)
        except FileNotFoundError:
            raise NotFound(f"process.cwd: {self.directory!r} does not exist") from None
        # A leaked descriptor of a host directory shows here as "(unreachable)" (CVE-2024-21626).
        if not os.getcwd().startswith("/"):
            raise FailedPrecondition(f"process.cwd: {self.directory!r} is outside the container")

    def execute(self) -> None:
        """execve(2); returns never, raises with the reason of the first candidate that exists."""
        name = self.arguments[0]
        refused: OSError | None = None
        for candidate in self._candidates(name):
            try:
                os.execve(candidate, self.arguments, self.environment)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                refused = refused or error
        if refused is None:
            raise NotFound(f'exec "{name}": no such file or directory')
        kind = PermissionDenied if isinstance(refused, PermissionError) else TrivetError
        raise kind(f'exec "{name}": {(refused.strerror or "").lower()}')

    def _candidates(self, name: str) -> list[str]:
        if "/" in name:
            return [name]
        return [f"{directory or '.'}/{name}" for directory in self.search.split(":")]


def take_stdio(stdio: tuple[int, int, int]) -> None:
    """Make the three descriptors 0, 1 and 2."""
    lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in stdio]
    for number, descriptor in enumerate(lifted):
        os.dup2(descriptor, number)


def write_sysctls(values: dict[str, str]) -> None:
    """Write namespaced sysctls below /proc/sys, through a private procfs so that no mount can redirect them."""
    if not values:
        return
    from_root = syscalls.fsopen("proc")
    syscalls.fsconfig_create(from_root)
    procfs = syscalls.fsmount(from_root)
    flags = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV
    for key, value in values.items():
        path = "sys/" + (key if "/" in key else key.replace(".", "/"))
        try:
            descriptor = syscalls.openat2(procfs, path, os.O_WRONLY, 0, flags)
            os.write(descriptor, value.encode())
        except OSError as error:
            raise InvalidArgument(f"sysctl {key}: cannot be set to {value!r}: {error.strerror}") from error
        os.close(descriptor)
    os.close(procfs)
    os.close(from_root)


def _open_console(size: dict[str, int], *, own_dev: bool) -> int:
    """A terminal of the container's own devpts on 0, 1, 2 and /dev/console; its master."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    # The peer by descriptor: /dev/pts/N could be replaced meanwhile (CVE-2025-52565).
    peer = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if size:
        window = struct.pack("HHHH", size.get("height", 0), size.get("width", 0), 0, 0)
        fcntl.ioctl(master, termios.TIOCSWINSZ, window)
    if own_dev:
        os.close(os.open("/dev/console", os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        tree = syscalls.open_tree(peer, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
        target = os.open("/dev/console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        syscalls.move_mount(tree, target)
        os.close(tree)
        os.close(target)
    fcntl.ioctl(peer, termios.TIOCSCTTY, 0)
    take_stdio((peer, peer, peer))
    return master


def _expect(channel: socket.socket, wanted: bytes) -> None:
    kind, _payload, _descriptors = messages.receive(channel)
    if kind != wanted:
        os._exit(1)  # the parent has gone, or has given up
