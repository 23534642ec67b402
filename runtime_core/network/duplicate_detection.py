"""Waits until the kernel answers for a link's IPv6 addresses: duplicate address detection (RFC 4862, section 5.4) has
ended or is disabled, and the kernel has joined their multicast groups. Both happen asynchronously. Cold.
"""

from __future__ import annotations

import socket
import time

from runtime_core.errors import AlreadyExists, DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.network.links import Links

_SECONDS = 10.0
_IPV6_ADDRESSES = 1 << 8  # RTMGRP_IPV6_IFADDR


class AddressEvents:
    """What happens to addresses of this thread's namespace, from now on."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, _IPV6_ADDRESSES))

    def __enter__(self) -> AddressEvents:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def wait_for_duplicate_detection(self, links: Links, index: int, seconds: float = _SECONDS) -> None:
        """For addresses that were set without the flag NODAD since this object is there.

        AlreadyExists when somebody else has one, DeadlineExceeded after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            unsettled, failed = links.tentative_addresses(index)
            if failed:
                raise AlreadyExists(f"{', '.join(failed)}: another node of the link has this address")
            if not unsettled:
                return
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                self._socket.recv(1 << 16)
            except TimeoutError:
                raise DeadlineExceeded(f"{', '.join(unsettled)}: still looking for duplicates after {seconds:g} s") from None
