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
#: what became of a call, also in the words of the machine code: the service died after TAKEN; it did not take it, sent it
#: back, or died before; it took it and does not answer
DIED, ALONE, HUNG = "--trivet-died", "--trivet-alone", "--trivet-hung"
#: so long a service may take to take a call, and then to answer it, which is longer than a DHCP server is waited for
TAKE_SECONDS, ANSWER_SECONDS = 10, 240
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
    has_asked = len(sys.argv) == 2 and sys.argv[1] in (DIED, ALONE, HUNG)
    outcome = sys.argv.pop() if has_asked else ALONE
    asks_service = settings["socket"] and not has_asked and len(sys.argv) == 1 and not _refuses_service(posix.environ)
    text = read_all(0) if command not in (b"", b"VERSION") else b""
    patience = settings.get("patience", (TAKE_SECONDS, ANSWER_SECONDS))
    connection = _connect(settings["socket"], patience[0]) if asks_service else None
    if connection is not None:
        outcome, answer = _ask(connection, request(kind, settings["key"], posix.environ, text), patience[1])
        if answer is not None:
            end(*answer)
    from cni_plugins.service import without  # here: what follows needs most of the library

    if outcome == HUNG:
        end(*without.wait_no_longer(settings, text, patience[1]))
    if outcome == DIED and command not in _REPEATABLE:
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


def _connect(path: str, seconds: int) -> "_socket.socket | None":
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        for option in (_RCVTIMEO, _SNDTIMEO):  # for connecting, too
            _wait_at_most(connection, option, seconds)
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


def _wait_at_most(connection: "_socket.socket", option: int, seconds: int) -> None:
    connection.setsockopt(_socket.SOL_SOCKET, option, seconds.to_bytes(8, sys.byteorder) + bytes(8))


def _ask(connection: "_socket.socket", message: bytes, seconds: int) -> "tuple[str, tuple[int, bytes, bytes] | None]":
    """(what became of the call; its exit status, output and standard error). A death or a wait before TAKEN has done
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
        return HUNG if _is_taken_after_all(connection) else ALONE, None
    except OSError:
        return ALONE, None
    if not answer:
        return ALONE, None
    return _await_answer(connection, answer, seconds)


def _is_taken_after_all(connection: "_socket.socket") -> bool:
    """If not, it cannot be any more: whoever takes it says so first, and cannot say it now."""
    connection.shutdown(_socket.SHUT_RD)
    return bool(connection.recv(1))


def _await_answer(connection: "_socket.socket", answer: bytes, seconds: int) -> "tuple[str, tuple[int, bytes, bytes] | None]":
    """After TAKEN."""
    try:
        _wait_at_most(connection, _RCVTIMEO, seconds)
        while chunk := connection.recv(_CHUNK):
            answer += chunk
    except BlockingIOError:
        return HUNG, None
    except OSError:
        return DIED, None
    status, length = int.from_bytes(answer[1:5], "little", signed=True), int.from_bytes(answer[5:9], "little")
    if len(answer) < 9 + length:
        return DIED, None
    if status == NOT_SERVED:
        return ALONE, None
    return "", (status, answer[9 : 9 + length], answer[9 + length :])


def end(status: int, output: bytes, errors: bytes = b"") -> "NoReturn":
    """Without the interpreter's own clean-up, which takes longer than the call."""
    for descriptor, content in ((1, output), (2, errors)):
        while content:
            content = content[posix.write(descriptor, content) :]
    posix._exit(status)
