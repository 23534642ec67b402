"""The edge of a program that people start: what it says of itself, and how it ends."""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Callable

from runtime_core.errors import PermissionDenied, TrivetError, from_oserror
from runtime_core.version import VERSION

_INTERRUPTED, _UNREAD = 130, 141  # 128 and the number of SIGINT and of SIGPIPE, as a shell tells it


def run(program: str, function: Callable[[], int]) -> int:
    """Exit status of `function`, whose failure is told in one line on standard error.

    When nobody reads its output any more (`trivet plugins | head -1`) it ends quietly, as a program that SIGPIPE kills.
    """
    try:
        try:
            return _status(program, function)
        finally:  # also when argparse exits
            if sys.stdout is not None:  # a shell's >&-
                sys.stdout.flush()
    except OSError as error:
        _discard_output()
        if isinstance(error, BrokenPipeError):
            return _UNREAD
        print(f"{program}: standard output: {error.strerror}", file=sys.stderr)
        return 1


def add_version(parser: argparse.ArgumentParser) -> None:
    """The option --version, which prints the program's name and version, and ends it."""
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")


def require_root(what: str) -> None:
    """PermissionDenied saying `what` the command does, unless the user is root (of this user namespace)."""
    if os.geteuid() != 0:
        raise PermissionDenied(what)


def describe(error: TrivetError) -> str:
    """Its text, and to an ordinary user whom a permission is denied that it takes root."""
    uid = os.geteuid()
    return f"{error}; that needs root, and you are uid {uid}" if isinstance(error, PermissionDenied) and uid != 0 else str(error)


def _status(program: str, function: Callable[[], int]) -> int:
    try:
        return function()
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (TrivetError, OSError) as failure:
        if isinstance(failure, OSError) and _output_fails():
            raise
        error = failure if isinstance(failure, TrivetError) else from_oserror(failure, "failed")
        print(f"{program}: {describe(error)}", file=sys.stderr)
        return error.exit_status


def _output_fails() -> bool:
    """Whether standard output or standard error has lost its reader, or cannot take what it was given."""
    poller = select.poll()
    for descriptor in (1, 2):
        poller.register(descriptor, 0)
    if any(event & (select.POLLERR | select.POLLHUP) for _descriptor, event in poller.poll(0)):
        return True
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        return True
    return False


def _discard_output() -> None:
    """What is still buffered goes nowhere: the interpreter would try, and complain, at its end."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)
