"""A node in a network namespace of its own, pods on it, our plugins called in-process, and traffic really sent."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.cni.invoke import Plugins
from runtime_core.cni.request import Request
from runtime_core.errors import TrivetError
from runtime_core.kernel import netlink
from runtime_core.network.link_messages import ipvlan_data, link_message, macvlan_data, vlan_data
from runtime_core.network.links import Links
from runtime_core.network.namespace import open_namespace
from runtime_core.registry import installed
from runtime_core.testing import namespaces
from runtime_core.testing.tools import require_program

SUBNETS = ("10.77.0.0/24", "fd77::/64")
_SECONDS = 5
_PORT = 7777


class Node:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pods: list[Path] = []
        self._plugins = Plugins([], {driver.name: driver.entry for driver in installed("cni")})

    def pod(self, name: str = "pod") -> Path:
        path = self.directory / name
        namespaces.pin_namespace(path)
        self.pods.append(path)
        return path

    def config(self, kind: str, *, subnets: tuple[str, ...] = SUBNETS, **more: Any) -> dict[str, Any]:
        """With host-local; ipam=None leaves it out."""
        ipam = {"type": "host-local", "dataDir": str(self.directory / "ipam"), "ranges": [[{"subnet": one}] for one in subnets]}
        made = {"cniVersion": "1.1.0", "name": "net", "type": kind, "ipam": ipam, **more}
        return {key: value for key, value in made.items() if value is not None}

    def call(self, verb: str, config: dict[str, Any], pod: Path | str = "", **more: Any) -> dict[str, Any]:
        """container_id, interface and args by `more`."""
        fields = {"container_id": "c1", "interface": "eth0", **more}
        return self._plugins.call(config["type"], verb, Request(config=config, netns=str(pod), **fields))

    def attach(self, config: dict[str, Any], pod: Path | str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """(result, the configuration as the calls after ADD have it)."""
        result = self.call("ADD", config, pod, **more)
        return result, {**config, "prevResult": json.loads(json.dumps(result))}

    def reserved(self) -> list[str]:
        """The first two addresses of each subnet that another container would not get."""
        taken = []
        for address in ("10.77.0.2", "fd77::2", "10.77.0.3", "fd77::3"):
            subnet = SUBNETS[":" in address]
            config = self.config("host-local", subnets=(subnet,), args={"cni": {"ips": [address]}})
            try:
                self.call("ADD", config, "/nowhere", container_id="probe")
            except TrivetError:
                taken.append(address)
            else:
                self.call("DEL", config, container_id="probe")
        return taken

    def close(self) -> None:
        for path in self.pods:
            namespaces.unpin_namespace(path)


@contextlib.contextmanager
def on(place: Path | str | None) -> Iterator[Links]:
    """This thread is in the namespace `place` (None: the node's); its links."""
    if place is None:
        with netlink.Socket() as sock:
            yield Links(sock)
    else:
        with namespaces.in_pinned_namespace(str(place)) as links:
            yield links


def names(place: Path | str | None = None) -> set[str]:
    with on(place) as links:
        return {link.name for link in links.all()} - {"lo"}


def tcp(source: Path | None, target: Path | None, address: str) -> str:
    """A connection from one namespace to `address` in the other one; where it came from."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with on(target):
        server = socket.create_server((address, _PORT), family=family)
    with server:
        server.settimeout(_SECONDS)
        with on(source):
            client = socket.create_connection((address, _PORT), timeout=_SECONDS)
        with client:
            connection, peer = server.accept()
            with connection:
                client.sendall(b"ping")
                assert connection.recv(4) == b"ping"
                connection.sendall(b"pong")
                assert client.recv(4) == b"pong"
    return str(peer[0])


def udp(source: Path | None, target: Path | None, address: str, *, seconds: float = _SECONDS) -> str:
    """A datagram there; where it came from. TimeoutError when none comes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with on(target):
        server = socket.socket(family, socket.SOCK_DGRAM)
        server.bind((address, _PORT))
    with server:
        with on(source):
            client = socket.socket(family, socket.SOCK_DGRAM)
        with client:
            client.sendto(b"ping", (address, _PORT))
            server.settimeout(seconds)
            data, peer = server.recvfrom(16)
    assert data == b"ping"
    return str(peer[0])


def reaches(source: Path | None, target: Path | None, addresses: list[str]) -> None:
    """TCP and UDP, to each of `addresses`."""
    for address in addresses:
        tcp(source, target, address)
        udp(source, target, address)


def addresses_of(result: dict[str, Any]) -> list[str]:
    return [ip["address"].partition("/")[0] for ip in result["ips"]]


def sysctl(place: Path | None, path: str) -> str:
    with on(place):
        return Path("/proc/sys/net", path).read_text().strip()


def unsettled(place: Path | None, name: str) -> tuple[list[str], list[str]]:
    """See Links.unsettled."""
    with on(place) as links:
        link = links.find(name)
        assert link is not None
        return links.tentative_addresses(link.index)


def answers(place: Path | None, name: str, address: str) -> bool:
    """Whether the interface is in the group by which neighbours ask for `address` (RFC 4291, section 2.7.1)."""
    group = "ff0200000000000000000001ff" + ipaddress.IPv6Address(address).packed[-3:].hex()
    with on(place):
        rows = [line.split() for line in Path("/proc/thread-self/net/igmp6").read_text().splitlines()]
    return (name, group) in {(row[1], row[2]) for row in rows}


def run(*command: str, place: Path | None = None) -> str:
    """What iproute2 or nftables say, in a namespace."""
    require_program(command[0], {"ip": "iproute2", "bridge": "iproute2", "nft": "nftables"}.get(command[0], command[0]))
    with on(place):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def add_pair(near: str, far: str, place: Path | None = None) -> None:
    """Both ends up, in one namespace."""
    with on(place) as links:
        links.add_veth(near, far, namespace=-1)
        found = links.find(far)
        assert found is not None
        links.set_up(found.index)


def uplink(outside: Path) -> None:
    """The node has a link to `outside`, which knows only the way to the pods."""
    target = open_namespace(str(outside))
    with on(None) as links:
        links.add_veth("up0", "eth0", namespace=target)
        near = links.find("up0")
        assert near is not None
        links.configure(near.index, ["198.51.100.1/24", "2001:db8::1/64"], [])
    with on(outside) as links:
        far = links.find("eth0")
        assert far is not None
        ways = [("10.77.0.0/24", "198.51.100.1"), ("fd77::/64", "2001:db8::1")]
        links.configure(far.index, ["198.51.100.2/24", "2001:db8::2/64"], ways)
    os.close(target)


def needs_kind(kind: str) -> None:
    """Skip where this kernel makes no such links."""
    if not has_kind(kind):
        pytest.skip(f"this kernel has no {kind} links")


def has_kind(kind: str) -> bool:
    with namespaces.node_namespace(), on(None) as links:
        links.add_veth("probe0", "probe1", namespace=-1)
        parent = links.find("probe0")
        assert parent is not None
        data = {"vlan": vlan_data(5), "ipvlan": ipvlan_data("l2"), "macvlan": macvlan_data("bridge")}.get(kind, [])
        try:
            links.send(link_message(kind, "probe2", data, parent=parent.index if data else 0))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return False
        return True


def needs_bridge_vlans() -> None:
    with namespaces.node_namespace(), on(None) as links:
        try:
            links.add_bridge("probe", vlan_filtering=True)
        except OSError as error:
            pytest.skip(f"this kernel's bridges have no VLANs (CONFIG_BRIDGE_VLAN_FILTERING): {error}")


@contextlib.contextmanager
def made(directory: Path) -> Iterator[Node]:
    with namespaces.node_namespace():
        node = Node(directory)
        try:
            yield node
        finally:
            node.close()
