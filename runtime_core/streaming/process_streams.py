"""The descriptors by which a stream reaches a process: pipes, or a terminal's master."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from dataclasses import dataclass
from typing import Any

from runtime_core.streaming.monitor_channel import MonitorChannel

_PIPE_BYTES = 1024 * 1024


@dataclass(slots=True)
class ProcessStreams:
    """-1 for what there is not. Of a terminal each is a descriptor of its own, and `terminal` is for its size."""

    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    terminal: int = -1


def start_exec(monitor: MonitorChannel, grant: dict[str, Any]) -> ProcessStreams:
    """Run grant["process"] in the container; it is killed when `monitor` is closed."""
    request = {"container_id": grant["container_id"], "process": grant["process"], "exec_id": "stream", "session": True}
    if grant["process"]["terminal"]:
        _result, (terminal,) = monitor.call("exec", request)
        stdin = os.dup(terminal) if grant["stdin"] else -1
        return ProcessStreams(stdin=stdin, stdout=os.dup(terminal), terminal=terminal)
    streams, theirs = ProcessStreams(), []
    try:
        for name in ("stdin", "stdout", "stderr"):
            theirs.append(_open_stream(name, streams) if grant[name] else os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        monitor.call("exec", request, theirs)
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    return streams


def _open_stream(name: str, streams: ProcessStreams) -> int:
    """A pipe; the process's end of it. Ours goes into `streams`."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except PermissionError:
        pass  # beyond what a user may have in all pipes (pipe(7)): it stays as it is
    ours, theirs = (writer, reader) if name == "stdin" else (reader, writer)
    setattr(streams, name, ours)
    return theirs


def attach(monitor: MonitorChannel, grant: dict[str, Any]) -> ProcessStreams:
    """The container's own streams: its output from now on is copied until `monitor` is closed."""
    request = {"container_id": grant["container_id"], **{name: grant[name] for name in ("stdin", "stdout", "stderr")}}
    result, descriptors = monitor.call("attach", request)
    return ProcessStreams(**dict(zip(result["streams"], descriptors, strict=True)))


def end_of_file(terminal: int) -> bytes:
    """What a person types to end the input (termios(3), VEOF)."""
    return bytes(termios.tcgetattr(terminal)[6][termios.VEOF])


def set_size(terminal: int, columns: Any, rows: Any) -> None:
    """Sizes that a terminal cannot have are left out: they come from outside."""
    if isinstance(columns, int) and isinstance(rows, int) and 0 < columns < 65536 and 0 < rows < 65536:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
