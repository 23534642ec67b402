"""Conditions in the words of `nft`, translated by nft itself: in a network namespace that nobody uses, from which the rule is
read back. Cold, and loaded for conditions that nft_conditions does not know.

A set within the rule ("ip daddr != { … }") is copied with it. Interfaces have their numbers there, for `iif` and `oif`.
"""

from __future__ import annotations

import os
import re
import struct

from plugins.packet_filters import ipt_command
from runtime_core.errors import InvalidArgument, from_oserror
from runtime_core.kernel import netlink, syscalls
from runtime_core.kernel.netlink import CREATE, EXCL, Message
from runtime_core.network import nft_reading
from runtime_core.network import nftables as nft
from runtime_core.network.links import Links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from runtime_core.network.nft_reading import Expression

_FAMILIES = {4: (nft.IPV4, "ip"), 6: (nft.IPV6, "ip6")}
_TABLE, _CHAIN = "conditions", "asked"
_NEWLINK = 16
#: expressions that look at a packet; what decides, changes or remembers is no condition
_LOOKING = frozenset(
    ("meta", "payload", "ct", "fib", "rt", "socket", "exthdr", "osf", "xfrm", "tunnel", "cmp", "bitwise", "byteorder", "range",
     "lookup", "hash", "numgen", "limit", "counter", "inner", "immediate")
)  # fmt: skip
_LOADED_INTO = {"meta": 1, "payload": 1, "ct": 1, "exthdr": 1}
_QUOTED = re.compile(r'"[^"\\\n]*"')
_NAME = re.compile(r"[^\s\"{},=!<>@/*]+")


def expressions(text: str, version: int, field: str) -> list[Any]:
    """Of a rule that holds when the conditions do. InvalidArgument with nft's own words where it takes none of it."""
    _check(text, field)
    with netlink.Socket() as sock:
        wanted = set(_NAME.findall(text))
        links = [(link.index, link.name) for link in Links(sock).all() if link.name in wanted and link.name != "lo"]
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            return _translated(text, version, field, links)
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    except OSError as error:
        raise from_oserror(error, f"{field}: translating {text!r}") from error
    finally:
        os.close(home)


def _check(text: str, field: str) -> None:
    """That it is part of one rule, whatever it says."""
    plain, depth = _QUOTED.sub("", text), 0
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0 or character in ';#"\\$' or ord(character) < 32:
            raise InvalidArgument(f"{field}: {text!r} does not stay within one rule: {character!r}")
    if depth:
        raise InvalidArgument(f"{field}: {text!r} lacks a closing brace")


def _translated(text: str, version: int, field: str, links: list[tuple[int, str]]) -> list[Any]:
    """In the namespace of nobody."""
    family, word = _FAMILIES[version]
    with netlink.Socket() as sock:
        for index, name in links:
            header = struct.pack("=BxHiII", 0, 0, index, 0, 0)
            sock.request(Message(_NEWLINK, header, [(3, name), (18, [(1, "bridge")])], CREATE | EXCL))
    status, said = ipt_command.run("nft", ["-f", "-"], f"table {word} {_TABLE} {{\nchain {_CHAIN} {{\n{text}\n}}\n}}\n")
    if status:
        reason = said.partition("Error: ")[2].partition("\n")[0] or said.strip()
        raise InvalidArgument(f"{field}: {text!r}: nft says: {reason}")
    with nft.Socket() as sock:
        rules = nft_reading.rules(sock, family, _TABLE, _CHAIN)
        if len(rules) != 1:
            raise InvalidArgument(f"{field}: {text!r} is no condition")
        return [one for expression in rules[0].expressions for one in _copied(sock, family, expression, text, field)]


def _copied(sock: nft.Socket, family: int, expression: Expression, text: str, field: str) -> Iterator[Any]:
    name = expression.name
    loads = expression.has(_LOADED_INTO.get(name, 1)) and not (name == "immediate" and expression.verdict())
    if name not in _LOOKING or not loads or (name == "lookup" and expression.has(3)):
        raise InvalidArgument(f"{field}: {text!r} does more than ask for a condition: {name}")
    if name == "lookup":
        in_set = expression.text(1)
        yield nft.InlineSet(*nft_reading.set_parts(sock, family, _TABLE, in_set), expression.number(2), expression.number(5))
    else:
        yield expression.copy()
