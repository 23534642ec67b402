"""One call in a child of the service: it becomes as its caller is, runs what an executable runs, and goes back. Cold."""

from __future__ import annotations

import _socket
import fcntl
import gc
import os
import select
import signal
import struct
import sys

from cni_plugins import skel
from cni_plugins.service import code
from cni_plugins.start import NOT_SERVED, TAKEN
from runtime_core.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 1 << 16
_DESCRIPTORS = 4
#: of /proc/PID/ns; of the network and the mount namespace descriptors come with the call
_NOT_FOLLOWED = tuple(name for name in ("user", "pid", "cgroup", "uts", "ipc", "time") if os.path.exists(f"/proc/self/ns/{name}"))
_SAMPLE = b'{"cniVersion": "1.1.0", "name": "warm", "type": "", "ipam": {"ranges": [[{"subnet": "10.0.0.0/8"}]]}}'
#: exit status and length of the output, behind which stands what goes to standard error: cni_plugins/start.py and
#: native_x86_64.s read it
_HEAD = struct.Struct("<iI")
_CREDENTIALS = struct.Struct("3i")


def reset() -> None:
    """A child that waits for its caller: signals as in any process, and the pages that a call writes on are its own."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    gc.disable()  # it ends before there would be anything to collect
    os.environ["CNI_COMMAND"] = "WARM"
    skel.answer("", {}, "", _SAMPLE, [])


def serve(connection: _socket.socket, settings: dict[str, Any], fingerprint: code.Fingerprint, own: list[str]) -> bool:
    """Serve the call; whether this process may serve another one. Who waits sees an end of file where it fails.

    `own` are the `namespaces` of the service."""
    descriptors: list[int] = []
    before = _open_files()
    home = _Home()
    try:
        connection.setblocking(True)
        message = _receive(connection, descriptors)
        _serve(connection, message, descriptors, settings, fingerprint, own)
    except OSError as error:  # the caller has gone, or sent nonsense
        print(f"trivet-cni: {error}", file=sys.stderr, flush=True)
        return False
    connection.close()
    for descriptor in descriptors:
        os.close(descriptor)
    return home.is_back() and _open_files() == before - 1


class _Home:
    """Where the child was before the call, so that it keeps nothing of its caller's: a namespace, what it has to say."""

    def __init__(self) -> None:
        self._root = os.stat("/")
        self._mount = os.stat("/proc/self/ns/mnt")
        self._network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._errors = os.dup(2)

    def is_back(self) -> bool:
        """False after a call with another root: what was imported there could be other code."""
        os.dup2(self._errors, 2)
        os.close(self._errors)
        try:
            _join(self._network, "/proc/self/ns/net", syscalls.CLONE_NEWNET)
        finally:
            os.close(self._network)
        os.chdir("/")
        return os.path.samestat(self._mount, os.stat("/proc/self/ns/mnt")) and os.path.samestat(self._root, os.stat("/"))


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _serve(
    connection: _socket.socket,
    message: bytes,
    descriptors: list[int],
    settings: dict[str, Any],
    fingerprint: code.Fingerprint,
    own: list[str],
) -> None:
    if not code.is_current(fingerprint):
        os.kill(os.getppid(), signal.SIGTERM)
        return _answer(connection, NOT_SERVED, b"the code has changed")
    fields, _, text = message.partition(b"\0\0")
    key, kind, umask, *variables = fields.split(b"\0")
    if key.decode() != settings["key"] or len(descriptors) != _DESCRIPTORS or not _is_equal(connection, own):
        return _answer(connection, NOT_SERVED, b"somebody else's")
    try:
        _become(descriptors, int(umask, 8), variables)
    except OSError as error:  # the caller may do what its service may not
        return _answer(connection, NOT_SERVED, str(error).encode())
    connection.sendall(TAKEN)
    _end_with(connection)
    errors = os.memfd_create("standard error")
    descriptors.append(errors)
    os.dup2(errors, 2)
    status, output = skel.answer(kind.decode(), settings["modules"], settings["packet_filter"], text, [])
    sys.stderr.flush()
    fcntl.fcntl(connection.fileno(), fcntl.F_SETFL, 0)
    _send(connection, status, output, os.pread(errors, os.fstat(errors).st_size, 0))
    return None


def _receive(connection: _socket.socket, descriptors: list[int]) -> bytes:
    """The request; what came with it is put into `descriptors`."""
    space = _socket.CMSG_SPACE((_DESCRIPTORS + 1) * 4)  # one more than there may be is seen
    data, ancillary, _flags, _address = connection.recvmsg(_CHUNK, space, _socket.MSG_CMSG_CLOEXEC)
    for level, kind, rights in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            count = len(rights) // 4
            descriptors += struct.unpack(f"{count}i", rights[: count * 4])
    chunks = [data]
    while chunk := connection.recv(_CHUNK):
        chunks.append(chunk)
    return b"".join(chunks)


def _is_equal(connection: _socket.socket, own: list[str]) -> bool:
    """Whether the caller is who the service is: for another one, or one with fewer rights, it would do what that one
    may not do itself."""
    peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(peer)
    if pid <= 0 or (uid, gid) != (os.geteuid(), os.getegid()):
        return False
    return namespaces(pid) == own and syscalls.capget(pid) == syscalls.capget()


def namespaces(pid: int | str = "self") -> list[str]:
    """Of a process, but for those that a caller is followed into: who sees other processes, another name of the node or
    other cgroups meets other files in /proc and elsewhere, under the same names."""
    return [os.readlink(f"/proc/{pid}/ns/{name}") for name in _NOT_FOLLOWED]


def _become(descriptors: list[int], umask: int, variables: list[bytes]) -> None:
    """The caller's namespaces, root, working directory, umask and environment."""
    network, mount, root, directory = descriptors
    _join(network, "/proc/self/ns/net", syscalls.CLONE_NEWNET)
    _join(mount, "/proc/self/ns/mnt", syscalls.CLONE_NEWNS)
    if not os.path.samestat(os.fstat(root), os.stat("/")):
        os.fchdir(root)
        os.chroot(".")
    os.fchdir(directory)
    os.umask(umask)
    os.environ.clear()
    for variable in variables:
        name, _, value = variable.partition(b"=")
        os.environ[os.fsdecode(name)] = os.fsdecode(value)


def _join(namespace: int, own: str, flag: int) -> None:
    if not os.path.samestat(os.fstat(namespace), os.stat(own)):
        syscalls.setns(namespace, flag)


def _end_with(connection: _socket.socket) -> None:
    """A caller that is killed takes its call along, as an executable's would: a DEL after it must not be overtaken.
    SIGIO ends a process that does not catch it, and comes when the other end of the socket goes."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(connection.fileno(), fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection.fileno(), fcntl.F_SETFL, os.O_ASYNC)
    poll = select.poll()
    poll.register(connection.fileno(), 0)
    if any(event & select.POLLHUP for _descriptor, event in poll.poll(0)):  # it was killed before
        os._exit(1)


def _answer(connection: _socket.socket, status: int, output: bytes) -> None:
    connection.sendall(TAKEN)
    _send(connection, status, output)


def _send(connection: _socket.socket, status: int, output: bytes, errors: bytes = b"") -> None:
    connection.sendall(_HEAD.pack(status, len(output)) + output + errors)
