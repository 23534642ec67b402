"""What the reference plugin keeps of a network: a directory with one file per address. Cold.

    10.1.0.5               "<container id>\\r\\n<interface>"; of old versions "<container id>" alone
    last_reserved_ip.0     the address given last, per range set

An empty file, which a crash may have left, is nobody's.
"""

from __future__ import annotations

import ipaddress
import os

from cni_plugins.ipam.host_local.address_key import address_to_key
from runtime_core.errors import from_oserror
from runtime_core.kernel.decimal_number import parse_decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

_LAST = "last_reserved_ip."
#: more is no reservation
_MOST = 1024


class Reservations:
    """What stood in the directory, as rows, with the files that may go once the rows are kept."""

    __slots__ = ("files", "last_allocated", "leases")

    def __init__(self) -> None:
        self.leases: list[tuple[bytes, str, str]] = []
        self.last_allocated: list[tuple[int, bytes]] = []
        self.files: list[str] = []


def read(directory: str, ignore: Container[str]) -> Reservations:
    """Files of other names are left alone."""
    found = Reservations()
    try:
        for name in os.listdir(directory):
            if name not in ignore:
                _read_one(directory, name, found)
    except OSError as error:
        raise from_oserror(error, f"ipam.dataDir: {directory}") from error
    return found


def remove(directory: str, files: list[str]) -> None:
    try:
        for name in files:
            os.unlink(f"{directory}/{name}")
    except OSError as error:
        raise from_oserror(error, f"ipam.dataDir: {directory}") from error


def _read_one(directory: str, name: str, found: Reservations) -> None:
    range_set = parse_decimal(name.removeprefix(_LAST)) if name.startswith(_LAST) else None
    address = None if range_set is not None else _key(name)
    if range_set is None and address is None:
        return
    descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        text = os.read(descriptor, _MOST).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
    found.files.append(name)
    if range_set is not None:
        last = _key(text.strip())
        if last is not None:
            found.last_allocated.append((range_set, last))
    elif address is not None and text.strip():
        container_id, _, interface = text.partition("\n")
        found.leases.append((address, container_id.strip(), interface.strip()))


def _key(text: str) -> bytes | None:
    try:
        return address_to_key(ipaddress.ip_address(text))
    except ValueError:
        return None
