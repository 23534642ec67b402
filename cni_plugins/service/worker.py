"""A worker of the service: takes over its caller's context, runs the plugin, and restores its own context. Cold."""

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
from cni_plugins.protocol import ACCEPTED, DECLINED
from cni_plugins.service import imports
from runtime_core.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 1 << 16
_DESCRIPTORS = 4
#: of /proc/PID/ns; of the network and the mount namespace descriptors come with the call
_NOT_FOLLOWED = tuple(name for name in ("user", "pid", "cgroup", "uts", "ipc", "time") if os.path.exists(f"/proc/self/ns/{name}"))
_WARM_UP_CONFIG = b'{"cniVersion": "1.1.0", "name": "warm", "type": "", "ipam": {"ranges": [[{"subnet": "10.0.0.0/8"}]]}}'
#: exit status and length of the output, behind which stands what goes to standard error: cni_plugins/start.py and
#: native_x86_64.s read it
_RESPONSE_HEADER = struct.Struct("<iI")
_CREDENTIALS = struct.Struct("3i")


def prepare() -> None:
    """Once in a new worker: default signal handling, and a call for practice, so that its pages are its own before one comes."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    gc.disable()  # it ends before there would be anything to collect
    os.environ["CNI_COMMAND"] = "WARM"
    skel.serve_call("", {}, "", _WARM_UP_CONFIG, [])


def serve(connection: _socket.socket, settings: dict[str, Any], fingerprint: imports.Fingerprint, own: list[str]) -> bool:
    """Serve one call; whether this process may serve another one. When it fails, the caller sees an end of file.

    `own` are the `namespaces` of the service."""
    descriptors: list[int] = []
    before = _open_files()
    original = _OriginalState()
    try:
        connection.setblocking(True)
        message = _receive(connection, descriptors)
        _serve_request(connection, message, descriptors, settings, fingerprint, own)
    except OSError as error:  # the caller has gone, or sent nonsense
        print(f"trivet-cni: {error}", file=sys.stderr, flush=True)
        return False
    connection.close()
    for descriptor in descriptors:
        os.close(descriptor)
    return original.restore() and _open_files() == before - 1


class _OriginalState:
    """The worker's own network namespace and standard error, restored after a call."""

    def __init__(self) -> None:
        self._root = os.stat("/")
        self._mount = os.stat("/proc/self/ns/mnt")
        self._network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._errors = os.dup(2)

    def restore(self) -> bool:
        """Restore them; False after a call with another root, where other code may have been imported."""
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


def _serve_request(
    connection: _socket.socket,
    message: bytes,
    descriptors: list[int],
    settings: dict[str, Any],
    fingerprint: imports.Fingerprint,
    own: list[str],
) -> None:
    if not imports.is_current(fingerprint):
        os.kill(os.getppid(), signal.SIGTERM)
        return _decline(connection, DECLINED, b"the code has changed")
    fields, _, text = message.partition(b"\0\0")
    key, kind, umask, *variables = fields.split(b"\0")
    if key.decode() != settings["key"] or len(descriptors) != _DESCRIPTORS or not _has_same_credentials(connection, own):
        return _decline(connection, DECLINED, b"somebody else's")
    try:
        _enter_caller_context(descriptors, int(umask, 8), variables)
    except OSError as error:  # the caller may do what its service may not
        return _decline(connection, DECLINED, str(error).encode())
    connection.sendall(ACCEPTED)
    _exit_with_caller(connection)
    errors = os.memfd_create("standard error")
    descriptors.append(errors)
    os.dup2(errors, 2)
    status, output = skel.serve_call(kind.decode(), settings["modules"], settings["packet_filter"], text, [])
    sys.stderr.flush()
    fcntl.fcntl(connection.fileno(), fcntl.F_SETFL, 0)
    _send_response(connection, status, output, os.pread(errors, os.fstat(errors).st_size, 0))
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


def _has_same_credentials(connection: _socket.socket, own: list[str]) -> bool:
    """Whether the caller has the service's user, user namespace and capabilities: for a caller with fewer privileges the
    service would do what the caller may not do itself."""
    peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(peer)
    if pid <= 0 or (uid, gid) != (os.geteuid(), os.getegid()):
        return False
    return namespaces(pid) == own and syscalls.capget(pid) == syscalls.capget()


def namespaces(pid: int | str = "self") -> list[str]:
    """Of a process, but for those that a caller is followed into: who sees other processes, another name of the node or
    other cgroups meets other files in /proc and elsewhere, under the same names."""
    return [os.readlink(f"/proc/{pid}/ns/{name}") for name in _NOT_FOLLOWED]


def _enter_caller_context(descriptors: list[int], umask: int, variables: list[bytes]) -> None:
    """Take over the caller's namespaces, root, working directory, umask and environment."""
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


def _exit_with_caller(connection: _socket.socket) -> None:
    """When the caller is killed, the call must end too, so that it does not run after a later DEL.
    SIGIO, which is sent when the other end of the socket is closed, kills a process that does not catch it."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(connection.fileno(), fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection.fileno(), fcntl.F_SETFL, os.O_ASYNC)
    poll = select.poll()
    poll.register(connection.fileno(), 0)
    if any(event & select.POLLHUP for _descriptor, event in poll.poll(0)):  # it was killed before
        os._exit(1)


def _decline(connection: _socket.socket, status: int, output: bytes) -> None:
    connection.sendall(ACCEPTED)
    _send_response(connection, status, output)


def _send_response(connection: _socket.socket, status: int, output: bytes, errors: bytes = b"") -> None:
    connection.sendall(_RESPONSE_HEADER.pack(status, len(output)) + output + errors)
