"""A gRPC server on a unix socket that only root can use."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import grpc

from runtime_core.errors import FailedPrecondition, InvalidArgument, from_oserror
from runtime_core.serving.threads import Threads

_LONGEST_PATH = 107
_THREADS = 64
_LARGEST_MESSAGE = 32 * 1024 * 1024


def socket_path(endpoint: str, field: str = "--listen") -> Path:
    """The path of unix:///PATH; InvalidArgument naming `field` for anything else."""
    path = endpoint.removeprefix("unix://")
    if not path.startswith("/"):
        raise InvalidArgument(f"{field}: {endpoint!r} is not unix:///PATH")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise InvalidArgument(f"{field}: {path} is longer than the {_LONGEST_PATH} bytes of a socket's name")
    return Path(path)


def prepare_socket(path: Path) -> None:
    """Make the directory, remove a socket on which nobody listens any more, see whether one can be made.

    FailedPrecondition when somebody listens, or when the path is something else.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.path.lexists(path):
            _remove_stale(path)
        # gRPC does not say why it cannot bind; this does.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError as error:
        raise from_oserror(error, f"listening on {path}") from error


def _remove_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise FailedPrecondition(f"listening on {path}: it exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a server whose backlog is full would keep a connect waiting
        code = probe.connect_ex(str(path))
    if code in (0, errno.EAGAIN):
        raise FailedPrecondition(f"listening on {path}: another server is listening there")
    if code != errno.ECONNREFUSED:
        raise FailedPrecondition(f"listening on {path}: {os.strerror(code)}")
    path.unlink()


def make_server(handlers: list[Any]) -> grpc.Server:
    """A gRPC server with these handlers; it is not bound and not started."""
    return grpc.server(
        Threads(_THREADS, "rpc"),  # type: ignore[arg-type]  # of an executor gRPC wants `submit` alone
        handlers=handlers,
        options=[
            ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
            ("grpc.max_send_message_length", _LARGEST_MESSAGE),
            ("grpc.so_reuseport", 0),
        ],
    )


def bind(server: grpc.Server, path: Path) -> None:
    """Listen on `path`, for root alone."""
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix://{path}")
    except RuntimeError as error:
        raise FailedPrecondition(f"listening on {path}: {error}") from error
    finally:
        os.umask(before)
