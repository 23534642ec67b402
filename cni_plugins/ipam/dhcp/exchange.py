"""The sockets by which one interface of a container talks DHCP, open while an answer is waited for. Cold."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

from cni_plugins.ipam.dhcp import frame, packet
from runtime_core.errors import NotFound
from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.network.namespace import in_namespace, open_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.ipam.dhcp.client import OutgoingMessage
    from runtime_core.network.links import Link

_SOL_PACKET, _PACKET_AUXDATA, _CHECKSUM_NOT_READY = 263, 8, 8
_SO_ATTACH_FILTER, _SO_BINDTODEVICE = 26, 25
_ETH_P_IP, _ETHERNET = 0x0800, 1
_EVERYBODY, _ALL_MACS = b"\xff" * 4, b"\xff" * 6
_LONGEST = 2048
#: UDP to the client's port, not a fragment (bpf(4)): a busy container must not wake us with all that it receives
_FILTER = (
    (0x30, 0, 0, 9), (0x15, 0, 6, 17), (0x28, 0, 0, 6), (0x45, 4, 0, 0x1FFF), (0xB1, 0, 0, 0), (0x48, 0, 0, 2),
    (0x15, 0, 1, frame.CLIENT_PORT), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0),
)  # fmt: skip


class ContainerInterface:
    """An interface in a network namespace. `identity` tells the namespace from another that took its path later."""

    __slots__ = ("identity", "interface", "netns")

    def __init__(self, netns: str, interface: str, identity: tuple[int, int] | None = None) -> None:
        self.netns, self.interface, self.identity = netns, interface, identity


class Exchange:
    """Usable from any namespace, though its sockets stay in the container's."""

    def __init__(self, container_interface: ContainerInterface) -> None:
        """NotFound where the namespace or the link is gone."""
        namespace = _open(container_interface)
        try:
            with in_namespace(namespace):
                self._socket = _packet_socket(container_interface.interface)
        finally:
            os.close(namespace)
        self._interface = container_interface
        self._unicast: socket.socket | None = None

    def fileno(self) -> int:
        """The packet socket's descriptor, for a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close both sockets."""
        self._socket.close()
        if self._unicast is not None:
            self._unicast.close()

    def send(self, what: OutgoingMessage) -> None:
        """A packet that cannot be sent is as good as one that is lost on its way: it will be sent again."""
        payload = packet.encode(what.message)
        was_sent = what.server is not None and self._send_unicast(payload, what.message.client_address, what.server)
        # The interface may be gone before the server's hardware address is found: what gives the address back, and is
        # not repeated, also goes to all of the link.
        if was_sent and what.message.kind != packet.RELEASE:
            return
        wrapped = frame.wrap(payload, what.message.client_address, what.server or _EVERYBODY)
        try:
            self._socket.sendto(wrapped, (self._interface.interface, _ETH_P_IP, 0, _ETHERNET, _ALL_MACS))
        except OSError:
            return

    def receive(self) -> list[packet.Message]:
        """What has come, without waiting; what is not well-formed is left out."""
        found: list[packet.Message] = []
        while True:
            try:
                data, ancillary, _flags, _address = self._socket.recvmsg(_LONGEST, 256, socket.MSG_DONTWAIT)
            except OSError:  # nothing more, or the link is down
                return found
            payload = frame.unwrap(data, is_checked=_is_checksum_ready(ancillary))
            try:
                if payload is not None:
                    found.append(packet.decode(payload))
            except packet.Malformed:
                continue

    def _send_unicast(self, payload: bytes, source: bytes, server: bytes) -> bool:
        """By a socket that has the container's address, which finds the server's hardware address and any router."""
        try:
            if self._unicast is None:
                self._unicast = self._bound(source)
            self._unicast.sendto(payload, (socket.inet_ntoa(server), frame.SERVER_PORT))
        except (OSError, NotFound):
            return False
        return True

    def _bound(self, source: bytes) -> socket.socket:
        namespace = _open(self._interface)
        try:
            with in_namespace(namespace):
                unicast = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        finally:
            os.close(namespace)
        try:
            unicast.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            unicast.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # answers are read from the packet socket
            unicast.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, self._interface.interface.encode() + b"\0")
            unicast.bind((socket.inet_ntoa(source), frame.CLIENT_PORT))
        except OSError:
            unicast.close()
            raise
        return unicast


def set_up(container_interface: ContainerInterface) -> bytes:
    """The link's hardware address. NotFound where there is none."""
    namespace = _open(container_interface)
    try:
        with in_namespace(namespace), netlink.Socket() as sock:
            links = Links(sock)
            link = _find_link(links, container_interface.interface)
            if not link.is_up:
                links.set_up(link.index)
    finally:
        os.close(namespace)
    return bytes.fromhex(link.mac.replace(":", ""))


def set_down(container_interface: ContainerInterface) -> None:
    """NotFound where there is no link any more."""
    namespace = _open(container_interface)
    try:
        with in_namespace(namespace), netlink.Socket() as sock:
            links = Links(sock)
            links.set_down(_find_link(links, container_interface.interface).index)
    finally:
        os.close(namespace)


def namespace_identity(netns: str) -> tuple[int, int]:
    namespace = open_namespace(netns)
    try:
        status = os.fstat(namespace)
    finally:
        os.close(namespace)
    return status.st_dev, status.st_ino


def _open(container_interface: ContainerInterface) -> int:
    namespace = open_namespace(container_interface.netns)
    status = os.fstat(namespace)
    if container_interface.identity is not None and (status.st_dev, status.st_ino) != container_interface.identity:
        os.close(namespace)
        raise NotFound(f"CNI_NETNS: {container_interface.netns!r} is another namespace by now")
    return namespace


def _find_link(links: Links, interface: str) -> Link:
    link = links.find(interface)
    if link is None:
        raise NotFound(f"CNI_IFNAME: the container has no interface {interface}")
    return link


def _packet_socket(interface: str) -> socket.socket:
    # Of no protocol at first: nothing comes before the filter stands.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    try:
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in _FILTER))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_FILTER), ctypes.addressof(program)))
        sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        sock.bind((interface, _ETH_P_IP))
    except OSError as error:
        sock.close()
        if error.errno == errno.ENODEV:
            raise NotFound(f"CNI_IFNAME: the container has no interface {interface}") from error
        raise
    return sock


def _is_checksum_ready(ancillary: list[tuple[int, int, bytes]]) -> bool:
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(data) >= 4:
            return not struct.unpack_from("=I", data)[0] & _CHECKSUM_NOT_READY
    return True
