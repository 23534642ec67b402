"""Traffic to mapped ports: a server somewhere, a client somewhere else, and what the server sees."""

from __future__ import annotations

import re
import select
import socket
import subprocess
from pathlib import Path

from runtime_core.testing.tools import require_program
from tests.kernel.cni.main_node import on

_SECONDS = 20.0
_DATAGRAMS = 20


def talk(protocol: str, origin: Path | None, target: tuple[str, int], place: Path | None, server: tuple[str, int]) -> str | None:
    """`origin` talks to `target` and is answered by `server`: the address that the server sees; None where it is refused."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with on(place):
        listening = socket.socket(family, kind)
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.settimeout(_SECONDS)
        listening.bind(server)
        if protocol == "tcp":
            listening.listen()
        with on(origin):
            client = socket.socket(family, kind)
        with client:
            client.settimeout(_SECONDS)
            try:
                client.connect(target)
                if protocol == "udp":
                    return _answered_datagram(listening, client)
            except ConnectionRefusedError:
                return None
            connection, peer = listening.accept()
            with connection:
                connection.sendall(b"y")
                assert client.recv(1) == b"y"
    return str(peer[0])


def heard(listening: socket.socket, sending: socket.socket, text: bytes) -> bool:
    """Whether the datagram arrives, of those sent until one arrives or is refused."""
    for _time in range(_DATAGRAMS):
        try:
            sending.send(text)
            ready = select.select([listening, sending], [], [], 1)[0]
            if listening in ready:
                return listening.recv(16) == text
            if sending in ready:
                sending.recv(1)
        except ConnectionRefusedError:
            return False
    return False


def filters() -> str:
    """What stands in all packet filters of the node, without the names of empty built-in chains."""
    lines = []
    for program, package in (("nft", "nftables"), ("iptables-save", "iptables"), ("ip6tables-save", "iptables")):
        command = [require_program(program, package), *(["list", "ruleset"] if program == "nft" else [])]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        lines += re.sub(r"packets \d+ bytes \d+", "", said).splitlines()
    return "\n".join(line for line in lines if "trivet" in line.lower() or "dnat" in line.lower() or "masquerade" in line.lower())


def rules() -> str:
    """All that stands in the packet filters of the node, whoever made it."""
    commands = (["nft", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"])
    return "".join(subprocess.run(command, check=True, capture_output=True, text=True).stdout for command in commands)


def _answered_datagram(listening: socket.socket, client: socket.socket) -> str:
    for _time in range(_DATAGRAMS):
        client.send(b"x")
        ready = select.select([listening, client], [], [], 1)[0]
        if client in ready:
            client.recv(1)
        if listening in ready:
            break
    _data, peer = listening.recvfrom(1)
    listening.sendto(b"y", peer)
    assert client.recv(1) == b"y"
    return str(peer[0])
