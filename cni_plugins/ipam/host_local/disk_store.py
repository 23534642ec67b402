"""The reservations of one network: a directory with one file per address, as the reference plugin keeps it.

    <dataDir>/<network>/10.1.0.5               "<container id>\\r\\n<interface>"
    <dataDir>/<network>/last_reserved_ip.0     the address given last, per range set
    <dataDir>/<network>/lock                   flock: a dead process holds nothing

A reservation appears whole (written unnamed, then linked) or not at all; an empty or torn
file, which an older plugin may have left, is free. Cold.
"""

from __future__ import annotations

import fcntl
import os

from runtime_core.errors import InvalidArgument, from_oserror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_DIRECTORY = "/var/lib/cni/networks"


class DiskStore:
    """Locked for as long as it is open."""

    def __init__(self, data_directory: str, network: str) -> None:
        if "/" in network or network in ("", ".", ".."):
            raise InvalidArgument(f"name: {network!r} cannot name a directory")
        self._directory = f"{data_directory or DEFAULT_DIRECTORY}/{network}"
        try:
            os.makedirs(self._directory, 0o755, exist_ok=True)
            self._lock = os.open(f"{self._directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise from_oserror(error, f"ipam.dataDir: {self._directory}") from error

    def __enter__(self) -> DiskStore:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._lock)

    def reserve(self, address: str, container_id: str, interface: str, range_set: int) -> bool:
        """False when somebody has it."""
        path = self._path(address)
        unnamed = os.open(self._directory, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            os.write(unnamed, f"{container_id}\r\n{interface}".encode())
            for _attempt in range(2):
                try:
                    # With a descriptor given, Python calls linkat(AT_SYMLINK_FOLLOW), which can name what has no name.
                    os.link(f"/proc/self/fd/{unnamed}", path, src_dir_fd=unnamed, follow_symlinks=True)
                except FileExistsError:
                    if self.owner(address)[0]:
                        return False
                    os.unlink(path)  # torn: nobody's
                    continue
                break
        finally:
            os.close(unnamed)
        with open(f"{self._directory}/last_reserved_ip.{range_set}", "w") as file:
            file.write(address)
        return True

    def owner(self, address: str) -> tuple[str, str]:
        """(container id, interface); ("", "") for a free address."""
        try:
            with open(self._path(address)) as file:
                container_id, _, interface = file.read().partition("\n")  # read as text, \r\n is \n
        except FileNotFoundError:
            return "", ""
        return container_id.strip(), interface.strip()

    def last(self, range_set: int) -> str:
        try:
            with open(f"{self._directory}/last_reserved_ip.{range_set}") as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""

    def reservations(self) -> Iterator[tuple[str, str, str]]:
        """(address, container id, interface) of all."""
        for name in os.listdir(self._directory):
            if name == "lock" or name.startswith("last_reserved_ip."):
                continue
            yield (name.replace("_", ":"), *self.owner(name))

    def taken(self) -> set[str]:
        return {name for name in os.listdir(self._directory) if name != "lock"}

    def release(self, address: str) -> None:
        try:
            os.unlink(self._path(address))
        except FileNotFoundError:
            return

    def _path(self, address: str) -> str:
        return f"{self._directory}/{address}"
