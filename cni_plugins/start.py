"""Where every plugin executable starts: it calls the warm service, or runs the plugin itself when there is none.

Half of a call's time is the interpreter's start, so nothing but built-in modules is imported until it is known that
the service does not answer. docs/adr/0012-cni-service.md has the protocol and the figures.
"""

import _socket
import posix
import sys

from cni_plugins.protocol import ACCEPT_SECONDS, ANSWER_SECONDS, DECLINED, NO_SERVICE, SERVICE_DIED, SERVICE_HUNG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_RCVTIMEO, _SNDTIMEO = 20, 21
_CHUNK = 1 << 16
_PATH = 0o10000000  # O_PATH
#: verbs that may be run again when the service dies in the middle of them
_REPEATABLE = (b"DEL", b"CHECK", b"GC", b"STATUS", b"VERSION", b"")


def main(kind: str, settings: "dict[str, Any]") -> "NoReturn":
    """Serve one call of the plugin `kind`, and end the process.

    `settings` are what `trivet-cni install` found: modules, packet_filter, path, socket, key and idle; patience for tests.
    """
    command = posix.environ.get(b"CNI_COMMAND", b"")
    #: where the machine code has asked already (native_x86_64.s)
    has_asked = len(sys.argv) == 2 and sys.argv[1] in (SERVICE_DIED, NO_SERVICE, SERVICE_HUNG)
    outcome = sys.argv.pop() if has_asked else NO_SERVICE
    asks_service = settings["socket"] and not has_asked and len(sys.argv) == 1 and not _refuses_service(posix.environ)
    text = read_all(0) if command not in (b"", b"VERSION") else b""
    patience = settings.get("patience", (ACCEPT_SECONDS, ANSWER_SECONDS))
    connection = _connect(settings["socket"], patience[0]) if asks_service else None
    if connection is not None:
        outcome, answer = _call_service(connection, encode_request(kind, settings["key"], posix.environ, text), patience[1])
        if answer is not None:
            exit_process(*answer)
    from cni_plugins.service import in_process  # here: what follows needs most of the library

    if outcome == SERVICE_HUNG:
        exit_process(*in_process.time_out(settings, text, patience[1]))
    if outcome == SERVICE_DIED and command not in _REPEATABLE:
        exit_process(*in_process.roll_back_add(kind, settings, text))
    if asks_service and connection is None:
        in_process.start_service(settings)
    exit_process(*in_process.run_in_process(kind, settings, text))


def _refuses_service(environment: "dict[bytes, bytes]") -> bool:
    """By TRIVET_CNI_SERVICE=off; or in a test with failpoints, which a process reads once, at its start."""
    return environment.get(b"TRIVET_CNI_SERVICE") == b"off" or b"TRIVET_FAILPOINTS" in environment


def read_all(descriptor: int) -> bytes:
    chunks = []
    while chunk := posix.read(descriptor, _CHUNK):
        chunks.append(chunk)
    return b"".join(chunks)


def _connect(path: str, seconds: int) -> "_socket.socket | None":
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        for option in (_RCVTIMEO, _SNDTIMEO):  # for connecting, too
            _set_timeout(connection, option, seconds)
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection


def encode_request(kind: str, key: str, environment: "dict[bytes, bytes]", text: bytes) -> bytes:
    """NUL-terminated: the key, the plugin, the umask, the environment; an empty one; then the configuration."""
    umask = posix.umask(0)
    posix.umask(umask)
    variables = [name + b"=" + value for name, value in environment.items()]
    return b"\0".join([key.encode(), kind.encode(), b"%o" % umask, *variables, b"", text])


def _set_timeout(connection: "_socket.socket", option: int, seconds: int) -> None:
    connection.setsockopt(_socket.SOL_SOCKET, option, seconds.to_bytes(8, sys.byteorder) + bytes(8))


def _call_service(connection: "_socket.socket", message: bytes, seconds: int) -> "tuple[str, tuple[int, bytes, bytes] | None]":
    """(what became of the call; its exit status, output and standard error). A death or a wait before ACCEPTED has done
    nothing. Standard error is not lent: a runtime that waits for its end would wait for a service that hangs."""
    descriptors = []
    try:
        for name, flags in (("/proc/self/ns/net", 0), ("/proc/self/ns/mnt", 0), ("/", _PATH), (".", _PATH)):
            descriptors.append(posix.open(name, flags | posix.O_CLOEXEC))
        rights = b"".join(descriptor.to_bytes(4, sys.byteorder) for descriptor in descriptors)
        sent = connection.sendmsg([message[:_CHUNK]], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        connection.sendall(message[sent:])
        connection.shutdown(_socket.SHUT_WR)
        answer = connection.recv(_CHUNK)
    except BlockingIOError:
        return SERVICE_HUNG if _was_accepted_late(connection) else NO_SERVICE, None
    except OSError:
        return NO_SERVICE, None
    if not answer:
        return NO_SERVICE, None
    return _receive_response(connection, answer, seconds)


def _was_accepted_late(connection: "_socket.socket") -> bool:
    """If not, it cannot be any more: whoever takes it says so first, and cannot say it now."""
    connection.shutdown(_socket.SHUT_RD)
    return bool(connection.recv(1))


def _receive_response(connection: "_socket.socket", answer: bytes, seconds: int) -> "tuple[str, tuple[int, bytes, bytes] | None]":
    """After TAKEN."""
    try:
        _set_timeout(connection, _RCVTIMEO, seconds)
        while chunk := connection.recv(_CHUNK):
            answer += chunk
    except BlockingIOError:
        return SERVICE_HUNG, None
    except OSError:
        return SERVICE_DIED, None
    status, length = int.from_bytes(answer[1:5], "little", signed=True), int.from_bytes(answer[5:9], "little")
    if len(answer) < 9 + length:
        return SERVICE_DIED, None
    if status == DECLINED:
        return NO_SERVICE, None
    return "", (status, answer[9 : 9 + length], answer[9 + length :])


def exit_process(status: int, output: bytes, errors: bytes = b"") -> "NoReturn":
    """Write `output` and exit without the interpreter's clean-up, which takes longer than the call."""
    for descriptor, content in ((1, output), (2, errors)):
        while content:
            content = content[posix.write(descriptor, content) :]
    posix._exit(status)
