"""Clients that are attached to a container: each has pipes of its own, and none of them can hold the container back. Cold."""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

#: what a client may be behind before it is let go
_PIPE_BYTES = 1024 * 1024


class AttachedClient:
    """One of them, by its connection to the monitor."""

    __slots__ = ("connection", "has_stdin", "writers")

    def __init__(self, connection: socket.socket, *, has_stdin: bool) -> None:
        self.connection, self.has_stdin = connection, has_stdin
        self.writers: dict[str, int] = {}

    def follow(self, stream: str) -> int:
        """Copy `stream` from now on; the end that the client reads from."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except PermissionError:
            pass  # beyond what a user may have in all pipes (pipe(7)): it stays as it is
        self.writers[stream] = writer
        return reader

    def write(self, stream: str, data: bytes) -> bool:
        """False when the client has not read enough to take it all; one that has gone takes everything."""
        writer = self.writers.get(stream)
        if writer is None:
            return True
        try:
            return os.write(writer, data) == len(data)
        except BlockingIOError:
            return False
        except BrokenPipeError:
            return True

    def close(self) -> None:
        """Nothing is copied any more."""
        for writer in self.writers.values():
            os.close(writer)
        self.writers.clear()
