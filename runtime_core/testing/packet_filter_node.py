"""The node of the packet filters' contract suite: a pod behind it, a host outside, and who is seen by whom."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path

from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.network.namespace import open_namespace
from runtime_core.testing import namespaces

_SECONDS = 20.0
#: of which one must arrive: a young IPv6 link loses some
_DATAGRAMS = 20


def connect_namespaces(directory: Path) -> None:
    ends = {
        "pod": (["10.88.0.2/24", "fd88::2/80"], ["10.88.0.1/24", "fd88::1/80"]),
        "outside": (
            ["192.0.2.2/24", "10.88.200.2/24", "2001:db8::2/64", "fd88::200:0:0:2/80"],
            ["192.0.2.1/24", "192.0.2.9/24", "10.88.200.1/24", "2001:db8::9/64", "2001:db8::1/64", "fd88::200:0:0:1/80"],
        ),
    }
    for name, (far, near) in ends.items():
        namespaces.pin_namespace(directory / name)
        namespace = open_namespace(str(directory / name))
        with netlink.Socket() as sock:
            links = Links(sock)
            links.add_veth(name, "eth0", namespace=namespace)
            link = links.find(name)
            assert link is not None
            links.configure(link.index, near, [])
        os.close(namespace)
        routes = [("0.0.0.0/0", "10.88.0.1"), ("::/0", "fd88::1")] if name == "pod" else []
        with namespaces.in_pinned_namespace(str(directory / name)) as inner:
            link = inner.find("eth0")
            assert link is not None
            inner.configure(link.index, far, routes)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


def seen_source(directory: Path, source: str, destination: str) -> str:
    """The address from which the outside hears what the pod says."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with namespaces.in_pinned_namespace(str(directory / "outside")):
        listening = socket.socket(family, socket.SOCK_DGRAM)
        listening.bind((destination, 0))
    with namespaces.in_pinned_namespace(str(directory / "pod")):
        sending = socket.socket(family, socket.SOCK_DGRAM)
        sending.bind((source, 0))  # a port of its own: the kernel remembers translations by flow
    with listening, sending:
        for _time in range(_DATAGRAMS):
            sending.sendto(b"x", listening.getsockname()[:2])
            if select.select([listening], [], [], 1)[0]:
                return str(listening.recvfrom(16)[1][0])
    raise AssertionError(f"none of {_DATAGRAMS} datagrams from {source} reached {destination}")


def source_at_server(
    directory: Path, protocol: str, origin: str, target: str, port: int, server: str, server_port: int, source: str = ""
) -> str | None:
    """The address that the server (in the pod, or outside) sees when `origin` talks to `target` and is answered; None when
    `target` refuses. `origin` is pod, outside or node, with words after it that say more."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    place = "pod" if server.startswith(("10.88.0.", "fd88::2")) else "outside"
    with namespaces.in_pinned_namespace(str(directory / place)):
        listening = socket.socket(family, kind)
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.settimeout(_SECONDS)
        listening.bind((server, server_port))
        if protocol == "tcp":
            listening.listen()
        with contextlib.nullcontext() if origin.startswith("node") else namespaces.in_pinned_namespace(str(directory / origin)):
            client = socket.socket(family, kind)
        with client:
            client.settimeout(_SECONDS)
            if source:
                client.bind((source, 0))
            try:
                client.connect((target, port))
                client.sendall(b"x")
                if protocol == "udp":  # a refusal comes with the answer to the first datagram
                    return _answered_datagram(listening, client)
            except ConnectionRefusedError:
                return None
            connection, peer = listening.accept()
            with connection:
                connection.sendall(b"y")
                assert client.recv(1) == b"y"
            return str(peer[0])


def _answered_datagram(listening: socket.socket, client: socket.socket) -> str:
    for _time in range(_DATAGRAMS):
        ready = select.select([listening, client], [], [], 1)[0]
        if client in ready:
            client.recv(1)
        if listening in ready:
            break
        client.send(b"x")
    _data, peer = listening.recvfrom(1)
    listening.sendto(b"y", peer)
    assert client.recv(1) == b"y"
    return str(peer[0])
