"""The warm service: imports every plugin once, and serves calls by worker processes that wait for them. Cold."""

from __future__ import annotations

import _socket
import fcntl
import gc
import os
import select
import signal
import struct
import time

from cni_plugins.service import imports, worker
from runtime_core.errors import TrivetError, from_oserror
from runtime_core.kernel import syscalls, unexpected_errors
from runtime_core.network.packet_filter import REFERENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

#: loaded besides the plugins: what only some calls need
_EXTRA = ("cni_plugins.skel", "runtime_core.cni.invoke")
_BACKLOG = 1024
_ENDING = (signal.SIGTERM, signal.SIGINT)
#: more at once would only wait for the kernel's locks; fewer could all wait for a DHCP server
_MAX_WORKERS = 32
#: so often a service without calls looks whether its socket is still there
_LOOK_SECONDS = 30.0
#: a chain's next plugin comes while the place of the first is filled
_SPARE_WORKERS = 2
#: so many children serve one call after the other, which spares a fork and pages of memory; each so often
_LASTING, _CALLS = 4, 64


def serve(settings: dict[str, Any], path: str, idle: float, on_ready: Callable[[], None] | None = None) -> bool:
    """Until SIGTERM, or until nobody has called for `idle` seconds (0: for ever); False when another one serves already."""
    lock = _lock(path)
    if lock < 0:
        return False
    entries = (settings["packet_filter"], REFERENCE)
    fingerprint = imports.import_modules(*_EXTRA, *settings["modules"].values(), *(entry.partition(":")[0] for entry in entries))
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # until somebody handles it, or the socket would stay
    listener, identity = _listen(path)
    try:
        gc.collect()
        gc.freeze()  # children do not write on the pages of what was imported
        if on_ready is not None:
            on_ready()
        own = worker.namespaces()
        _Loop(lambda caller: worker.serve(caller, settings, fingerprint, own), listener, identity, lock, path, idle).run()
    finally:
        listener.close()
        os.close(lock)
    return True


def detach() -> None:
    """Give up all that comes from the starting process: descriptors, working directory, environment, signals."""
    syscalls.close_range(3)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    os.chdir("/")
    os.environ.clear()
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:  # it would keep the caller's network namespace, with all that is in it, until it ends
        syscalls.unshare(syscalls.CLONE_NEWNET)
    except OSError:
        pass  # it may not: then it may not enter another one either, and calls from there are sent back
    syscalls.set_process_name("trivet-cni")


def _lock(path: str) -> int:
    """The descriptor of the lock that whoever serves `path` holds, with its pid in it; -1 when somebody else does."""
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if os.stat(directory).st_uid != os.geteuid() or os.stat(directory).st_mode & 0o022:
            raise TrivetError(f"{directory}: others may write in it")
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise from_oserror(error, f"socket {path}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    os.pwrite(descriptor, b"%-10d\n" % os.getpid(), 0)  # of one width: a reader sees one number, whole
    return descriptor


def _listen(path: str) -> tuple[_socket.socket, tuple[int, ...] | None]:
    """The socket, and which file it is. Who holds the lock may remove what a killed service has left."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    temporary = f"{path}.new"
    try:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        before = os.umask(0o177)
        try:
            listener.bind(temporary)
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
        identity = _identity(temporary)
        os.rename(temporary, path)  # it is never there without somebody who listens
    except OSError as error:
        listener.close()
        raise from_oserror(error, f"socket {path}") from error
    return listener, identity


class _Loop:
    """Keeps a few workers waiting, so that no caller waits for a fork."""

    def __init__(
        self,
        serve_one: Callable[[_socket.socket], bool],
        listener: _socket.socket,
        identity: tuple[int, ...] | None,
        lock: int,
        path: str,
        idle: float,
    ) -> None:
        self._serve_one, self._listener, self._path, self._idle = serve_one, listener, path, idle
        self._identity = identity
        self._lock = lock
        self._waiting: set[int] = set()
        self._working: set[int] = set()
        self._is_ending = False
        #: a child writes its pid when it has a caller, and its negative when it waits for the next
        self._told, self._tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        #: its end tells children that nobody else will come
        self._hold, self._held = os.pipe2(os.O_CLOEXEC)

    def run(self) -> None:
        """Ends without losing a call: the name goes first, then who has found it by then is served."""
        waking, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore_signal)
        for number in _ENDING:
            signal.signal(number, self._end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        try:
            self._fork_spare_workers()
            while not self._is_ending and self._wait(waking):
                self._fork_spare_workers()
        finally:
            if self._is_reachable():
                os.unlink(self._path)
            signal.set_wakeup_fd(-1)
        os.close(self._held)
        self._held = -1
        while self._waiting or self._working or _has_caller(self._listener):
            if not self._waiting and not self._working:
                self._fork()
            self._reap(os.waitpid(-1, 0)[0])

    def _wait(self, waking: int) -> bool:
        """Until something has happened; False when nothing did for too long."""
        poll = select.poll()
        poll.register(waking, select.POLLIN)
        poll.register(self._told, select.POLLIN)
        since = time.monotonic()
        while not poll.poll(_LOOK_SECONDS * 1000 if self._working else min(self._idle or _LOOK_SECONDS, _LOOK_SECONDS) * 1000):
            if self._idle and not self._working and time.monotonic() - since >= self._idle:
                return False
            if not self._is_reachable():
                return False
        self._read_worker_states()
        try:
            while os.read(waking, 4096):
                pass
        except BlockingIOError:
            pass
        while self._waiting or self._working:
            pid, _status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            self._reap(pid)
        return True

    def _is_reachable(self) -> bool:
        """Whether the socket's path still leads to this service: its directory may have been removed."""
        return _identity(self._path) == self._identity

    def _read_worker_states(self) -> None:
        try:
            while pids := os.read(self._told, 4 * 1024):
                for (pid,) in struct.iter_unpack("i", pids):
                    self._note_worker(pid)
        except BlockingIOError:
            pass

    def _note_worker(self, pid: int) -> None:
        """A positive one has a caller now, a negative one waits again; the child may have ended since."""
        if pid in self._waiting:
            self._waiting.remove(pid)
            self._working.add(pid)
        elif -pid in self._working:
            self._working.remove(-pid)
            self._waiting.add(-pid)

    def _reap(self, pid: int) -> None:
        self._waiting.discard(pid)
        self._working.discard(pid)

    def _fork_spare_workers(self) -> None:
        while len(self._waiting) < _SPARE_WORKERS and len(self._waiting) + len(self._working) < _MAX_WORKERS:
            self._fork()

    def _fork(self) -> None:
        calls = _CALLS if len(self._waiting) + len(self._working) < _LASTING else 1
        pid = os.fork()
        if pid == 0:
            worker.prepare()
            os.close(self._lock)  # only the service itself may keep the next one from starting
            if self._held >= 0:
                os.close(self._held)
            self._run_worker(calls)
        self._waiting.add(pid)

    def _run_worker(self, calls: int) -> NoReturn:
        """In a child, which ends when the next call would find it in another state than the first one."""
        try:
            for _call in range(calls):
                connection = self._accept_caller()
                os.write(self._tell, struct.pack("i", os.getpid()))
                if not self._serve_one(connection):
                    break
                os.write(self._tell, struct.pack("i", -os.getpid()))
        except Exception:  # noqa: BLE001  the edge of a process: its caller sees an end of file, and the service forks another
            unexpected_errors.print_stack("serving a call")
        finally:
            os._exit(0)

    def _accept_caller(self) -> _socket.socket:
        """In a child: it ends when there will be none."""
        poll = select.poll()
        poll.register(self._listener.fileno(), select.POLLIN)
        poll.register(self._hold, select.POLLHUP)
        while True:
            ready = [descriptor for descriptor, _event in poll.poll()]
            if self._listener.fileno() in ready:
                try:
                    descriptor, _address = self._listener._accept()  # type: ignore[attr-defined]
                except BlockingIOError:
                    continue  # another child was quicker
                return _socket.socket(fileno=descriptor)
            os._exit(0)

    def _end(self, _number: int, _frame: Any) -> None:
        self._is_ending = True


def _identity(path: str) -> tuple[int, ...] | None:
    """Of a file; an inode's number alone is soon another one's."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _has_caller(listener: _socket.socket) -> bool:
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _ignore_signal(_number: int, _frame: Any) -> None:
    """The wake-up descriptor tells."""
