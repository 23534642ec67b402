"""The launcher: one single-threaded process that forks, so that nobody else starts an interpreter.

Theory of operation. The daemon has threads (gRPC), and a threaded process must neither
fork nor unshare. So before its first thread it starts this process, which imports what
its children will need, freezes the garbage collector, and then only forks: a job costs
half a millisecond where an interpreter costs thirteen. It knows no job itself; the
daemon names the modules to preload, and a job by "module:function". Children outlive
it: when the daemon goes, the launcher goes, and its monitors stay.

Messages in:  {"id", "job", "argument"} with descriptors.
Messages out: {"id", "pid"} or {"id", "error"}; {"exited": pid, "status": exit code}.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed leaves it out
import gc
import importlib
import os
import select
import signal
import socket

from runtime_core.errors import NotFound
from runtime_core.kernel import syscalls, unexpected_errors
from runtime_core.launcher import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(descriptor: int, preload: list[str]) -> None:
    """Serve fork requests on the socket `descriptor` until its other end is closed."""
    # No collection before the forks: what it frees are holes all over the shared pages, and a child that
    # fills them copies a page for each (the theory of gc.freeze).
    gc.disable()
    syscalls.set_process_name("trivet-launcher")
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    os.setsid()
    modules = {name: importlib.import_module(name) for name in preload}
    daemon = socket.socket(fileno=descriptor)
    wakeup, notify = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
    gc.freeze()
    messages.send(daemon, {"ready": os.getpid()})
    poller = select.poll()
    poller.register(daemon, select.POLLIN)
    poller.register(wakeup, select.POLLIN)
    while True:
        ready = {fd for fd, _event in poller.poll()}
        if wakeup in ready:
            os.read(wakeup, 4096)
        _report_exits(daemon)
        if daemon.fileno() in ready:
            try:
                request, descriptors = messages.receive(daemon)
            except (EOFError, ConnectionResetError):
                return
            except Exception:  # noqa: BLE001  what came is no message, and the next one may be
                unexpected_errors.print_stack("receiving a message")
                continue
            _answer(daemon, modules, request, descriptors)


def _report_exits(daemon: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _send(daemon, {"exited": pid, "status": os.waitstatus_to_exitcode(status)})


def _answer(daemon: socket.socket, modules: dict[str, Any], request: dict[str, Any], descriptors: list[int]) -> None:
    """Whatever goes wrong costs this request alone."""
    reply: dict[str, Any] = {"id": request.get("id")}
    try:
        reply["pid"] = _fork(daemon, modules, request, descriptors)
    except Exception as error:  # noqa: BLE001  all other pods' processes come from here too
        reply["error"] = str(unexpected_errors.to_trivet_error(error, "forking"))
    for descriptor in descriptors:
        os.close(descriptor)
    _send(daemon, reply)


def _send(daemon: socket.socket, message: dict[str, Any]) -> None:
    try:
        messages.send(daemon, message)
    except (BrokenPipeError, ConnectionResetError):
        return  # the main loop sees the end of the connection


def _fork(daemon: socket.socket, modules: dict[str, Any], request: dict[str, Any], descriptors: list[int]) -> int:
    module, _, function = request["job"].partition(":")
    job = getattr(modules.get(module), function, None)
    if job is None:
        raise NotFound(f"job {request['job']!r} is not preloaded")
    argument = request["argument"]
    pid = os.fork()
    if pid == 0:
        _run(daemon, job, argument, descriptors)
    return pid


def _run(daemon: socket.socket, job: Any, argument: dict[str, Any], descriptors: list[int]) -> None:
    """In the child: run the job and never return."""
    status = 1
    try:
        daemon.detach()
        gc.enable()
        signal.set_wakeup_fd(-1)
        # Not through `signal`, whose enumerations would run on pages that the child then copies.
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        syscalls.close_all_except(set(descriptors))
        job(argument, descriptors)
        status = 0
    except BaseException:  # noqa: BLE001  the last frame of a process: what is raised here can only be printed
        unexpected_errors.print_stack("in a job")
    finally:
        os._exit(status)
