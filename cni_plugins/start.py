"""Where every plugin executable starts: the warm service is asked, and where there is none the plugin runs here.

Half of a call's time is the interpreter's start, so nothing but built-in modules is imported until it is known that
the service does not answer. docs/adr/0012-cni-service.md has the protocol and the figures.
"""

import _socket
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

#: what the service says first: this call is in hand
TAKEN = b"+"
#: the status with which it sends a call back that it may not serve; nothing has been done then
NOT_SERVED = -1
#: what the machine code says: the service died after TAKEN; it sent the call back, or died before
DIED, ALONE = "--trivet-died", "--trivet-alone"
_CHUNK = 1 << 16
_PATH = 0o10000000  # O_PATH
#: verbs that may be run again when the service dies in the middle of them
_REPEATABLE = (b"DEL", b"CHECK", b"GC", b"STATUS", b"VERSION", b"")


def main(kind: str, settings: "dict[str, Any]") -> "NoReturn":
    """Serve one call of the plugin `kind`, and end the process.

    `settings` are what `trivet-cni install` found: modules, packet_filter, path, socket, key and idle.
    """
    command = posix.environ.get(b"CNI_COMMAND", b"")
    #: where the machine code has asked already (native_x86_64.s)
    has_asked = sys.argv[1:] in ([DIED], [ALONE])
    was_taken = sys.argv[1:] == [DIED]
    if has_asked:
        del sys.argv[1:]
    asks_service = settings["socket"] and not has_asked and len(sys.argv) == 1 and not _refuses_service(posix.environ)
    text = read_all(0) if command not in (b"", b"VERSION") else b""
    connection = _connect(settings["socket"]) if asks_service else None
    if connection is not None:
        was_taken, answer = _ask(connection, request(kind, settings["key"], posix.environ, text))
        if answer is not None:
            end(*answer)
    from cni_plugins.service import without  # here: what follows needs most of the library

    if was_taken and command not in _REPEATABLE:
        end(*without.give_up(kind, settings, text))
    if asks_service and connection is None:
        without.start_service(settings)
    end(*without.run(kind, settings, text))


def _refuses_service(environment: "dict[bytes, bytes]") -> bool:
    """The user's word; or a test's, whose failpoints a process reads once, at its start."""
    return environment.get(b"TRIVET_CNI_SERVICE") == b"off" or b"TRIVET_FAILPOINTS" in environment


def read_all(descriptor: int) -> bytes:
    chunks = []
    while chunk := posix.read(descriptor, _CHUNK):
        chunks.append(chunk)
    return b"".join(chunks)


def _connect(path: str) -> "_socket.socket | None":
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection


def request(kind: str, key: str, environment: "dict[bytes, bytes]", text: bytes) -> bytes:
    """NUL-terminated: the key, the plugin, the umask, the environment; an empty one; then the configuration."""
    umask = posix.umask(0)
    posix.umask(umask)
    variables = [name + b"=" + value for name, value in environment.items()]
    return b"\0".join([key.encode(), kind.encode(), b"%o" % umask, *variables, b"", text])


def _ask(connection: "_socket.socket", message: bytes) -> "tuple[bool, tuple[int, bytes] | None]":
    """(whether the service took the call, its exit status and output). There is no answer where the service died or
    sent the call back; a death before TAKEN has done nothing."""
    was_taken = False
    descriptors = [2]
    try:
        for name, flags in (("/proc/self/ns/net", 0), ("/proc/self/ns/mnt", 0), ("/", _PATH), (".", _PATH)):
            descriptors.append(posix.open(name, flags | posix.O_CLOEXEC))
        rights = b"".join(descriptor.to_bytes(4, sys.byteorder) for descriptor in descriptors)
        sent = connection.sendmsg([message[:_CHUNK]], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        connection.sendall(message[sent:])
        connection.shutdown(_socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(_CHUNK):
            was_taken = True
            answer += chunk
    except OSError:
        return was_taken, None
    status, length = int.from_bytes(answer[1:5], "little", signed=True), int.from_bytes(answer[5:9], "little")
    if len(answer) < 9 or len(answer) != 9 + length:
        return was_taken, None
    if status == NOT_SERVED:
        return False, None
    return True, (status, answer[9:])


def end(status: int, output: bytes) -> "NoReturn":
    """Without the interpreter's own clean-up, which takes longer than the call."""
    while output:
        output = output[posix.write(1, output) :]
    posix._exit(status)
