"""What a process executes: arguments, environment, directory; and its standard streams."""

from __future__ import annotations

import fcntl
import os
import stat

from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from runtime_core.kernel import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Program:
    """Read from the OCI `process` before the fork matters, so that what is wrong with it is said early."""

    __slots__ = ("arguments", "directory", "environment", "search")

    def __init__(self, process: dict[str, Any]) -> None:
        self.arguments: list[str] = process.get("args") or []
        if not self.arguments or not self.arguments[0]:
            raise InvalidArgument("process.args is empty: neither the container nor its image names a program")
        self.directory: str = process.get("cwd") or "/"
        if not self.directory.startswith("/"):
            raise InvalidArgument(f"process.cwd: {self.directory!r} is not absolute")
        entries: list[str] = process.get("env") or []
        for field, values in (
            ("process.args", self.arguments), ("process.env", entries), ("process.cwd", [self.directory]),
        ):  # fmt: skip
            if not all(_is_text(value) for value in values):
                raise InvalidArgument(f"{field} contains a NUL character or a lone surrogate")
        self.environment: dict[str, str] = {}
        for entry in entries:
            name, _, value = entry.partition("=")
            if not name:
                raise InvalidArgument(f"process.env: {entry!r} has no name")
            self.environment[name] = value
        self.search = self.environment.get("PATH", _DEFAULT_PATH)

    def enter_directory(self) -> None:
        try:
            os.chdir(self.directory)
        except FileNotFoundError:
            raise NotFound(f"process.cwd: {self.directory!r} does not exist") from None
        except OSError as error:
            raise paths.wrong_path(error, f"process.cwd: {self.directory!r}") from error
        check_directory(self.directory)

    def execute(self) -> None:
        """execve(2); never returns, raises with the reason of the first candidate that exists."""
        name = self.arguments[0]
        refused: OSError | None = None
        for candidate in self._candidates(name):
            try:
                os.execve(candidate, self.arguments, self.environment)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                refused = refused or error
        if refused is None:
            raise NotFound(f'exec "{name}": no such file or directory')
        if isinstance(refused, PermissionError):
            raise PermissionDenied(f'exec "{name}": permission denied')
        raise FailedPrecondition(f'exec "{name}": {(refused.strerror or "").lower()}')

    def _candidates(self, name: str) -> list[str]:
        if "/" in name:
            return [name]
        return [f"{directory or '.'}/{name}" for directory in self.search.split(":")]


def _is_text(value: str) -> bool:
    """Whether the kernel can be given it."""
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def check_directory(name: str) -> None:
    """A leaked descriptor of a host directory shows in getcwd(2) as outside the root (CVE-2024-21626)."""
    try:
        is_inside = os.getcwd().startswith("/")  # the kernel says "(unreachable)/…"
    except FileNotFoundError:
        is_inside = False
    if not is_inside:
        raise FailedPrecondition(f"process.cwd: {name!r} is outside the container")


def install_stdio(stdio: tuple[int, int, int]) -> None:
    """Make the three descriptors 0, 1 and 2."""
    lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in stdio]
    for number, descriptor in enumerate(lifted):
        os.dup2(descriptor, number)
        os.close(descriptor)


def chown_stdio(stdio: tuple[int, int, int], uid: int) -> None:
    """Let the user open /dev/stdout again: pipes and terminals become its own.

    Nothing else does: a /dev/null or a file of the host keeps its owner (CVE-2026-88265).
    """
    for descriptor in set(stdio):
        status = os.fstat(descriptor)
        is_terminal = stat.S_ISCHR(status.st_mode) and 136 <= os.major(status.st_rdev) < 144
        if status.st_uid != uid and (stat.S_ISFIFO(status.st_mode) or is_terminal):
            os.fchown(descriptor, uid, -1)
