"""A node and a pod for chained plugins: a veth pair with addresses, as an earlier plugin would have made it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime_core.cni.request import Request
from runtime_core.kernel import netlink
from runtime_core.network.link_messages import veth_message
from runtime_core.network.links import Link, Links
from runtime_core.network.namespace import open_namespace
from runtime_core.testing import namespaces

HOST, POD = ("10.9.0.1", "fd09::1"), ("10.9.0.2", "fd09::2")
_LENGTHS = ("24", "64")


class Pod:
    """One pod whose eth0 is the other end of the node's `port`."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.path, self.port = directory, directory / "pod", "vethpod"
        namespaces.pin_namespace(self.path)

    def connect(self) -> None:
        namespace = open_namespace(str(self.path))
        with netlink.Socket() as sock:
            links = Links(sock)
            port = links.create(self.port, veth_message(self.port, "eth0", namespace=namespace))
            links.configure(port.index, _with_length(HOST), [])
        with self.inside() as links:
            far = links.find("eth0")
            assert far is not None
            links.configure(far.index, _with_length(POD), [("0.0.0.0/0", HOST[0]), ("::/0", HOST[1])])

    def previous(self) -> dict[str, Any]:
        ips = [{"interface": 1, "address": a, "gateway": g} for a, g in zip(_with_length(POD), HOST, strict=True)]
        return {
            "interfaces": [{"name": self.port}, {"name": "eth0", "mac": self.far().mac, "sandbox": str(self.path)}],
            "ips": ips, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}], "dns": {},
        }  # fmt: skip

    def request(self, previous: dict[str, Any] | None = None, *, container_id: str = "c1", **config: Any) -> Request:
        return Request(
            config={"cniVersion": "1.1.0", "name": "net", "type": "meta", **config},
            container_id=container_id, netns=str(self.path), interface="eth0", previous=previous,
        )  # fmt: skip

    def inside(self) -> Any:
        return namespaces.in_pinned_namespace(str(self.path))

    def far(self) -> Link:
        with self.inside() as links:
            link: Link | None = links.find("eth0")
        assert link is not None
        return link

    def lacks(self) -> set[tuple[str, str]]:
        """What the CHECK of the plugin before would miss: it looks for routes in every table."""
        with self.inside() as links:
            far = links.find("eth0")
            assert far is not None
            present = {(address, "") for address in links.addresses(far.index)} | links.routes(far.index)
        wanted = {*((address, "") for address in _with_length(POD)), ("0.0.0.0/0", HOST[0]), ("::/0", HOST[1])}
        return wanted - present

    def close(self) -> None:
        namespaces.unpin_namespace(self.path)


@contextmanager
def connected_pod(directory: Path) -> Iterator[Pod]:
    with namespaces.node_namespace():
        pod = Pod(directory)
        try:
            pod.connect()
            yield pod
        finally:
            pod.close()


def link_of_node(name: str) -> Link | None:
    with netlink.Socket() as sock:
        return Links(sock).find(name)


def links_of_node() -> list[str]:
    with netlink.Socket() as sock:
        return sorted(link.name for link in Links(sock).all() if link.name != "lo")


def seconds_to_send(pod: Pod, to: str, size: int) -> float:
    """Until `size` bytes have come over TCP at the address `to`, which is the pod's or the node's, from the other side."""
    family, into_pod = socket.AF_INET6 if ":" in to else socket.AF_INET, to in POD
    source = (HOST if into_pod else POD)[":" in to]
    with _at(pod, inside=into_pod):
        listener = socket.create_server((to, 0), family=family)
    with _at(pod, inside=not into_pod):
        sender = socket.create_connection(listener.getsockname()[:2], source_address=(source, 0))
    receiver, _peer = listener.accept()
    with listener, sender, receiver:
        started = time.monotonic()
        thread = threading.Thread(target=_send_all, args=(sender, size))
        thread.start()
        received = _receive(receiver, size)
        elapsed = time.monotonic() - started
        thread.join()
    assert received == size
    return elapsed


@contextmanager
def _at(pod: Pod, *, inside: bool) -> Iterator[None]:
    if not inside:
        yield
        return
    with pod.inside():
        yield


def _send_all(sender: socket.socket, size: int) -> None:
    sender.sendall(bytes(size))
    sender.shutdown(socket.SHUT_WR)


def _receive(receiver: socket.socket, most: int) -> int:
    got = 0
    while got < most:
        data = receiver.recv(min(1 << 16, most - got))
        if not data:
            break
        got += len(data)
    return got


def _with_length(addresses: tuple[str, str]) -> list[str]:
    return [f"{address}/{length}" for address, length in zip(addresses, _LENGTHS, strict=True)]
