"""Masquerading by iptables: one rule per pod address in a chain of ours.

    nat  POSTROUTING: … -j TRIVET-POSTROUTING
         TRIVET-POSTROUTING: -d 224.0.0.0/4 -j RETURN
                             -m mark --mark 0x2000/0x2000 -j MASQUERADE    # of port maps, see ipt_ports
                             -s 10.1.0.5/32 ! -d 10.1.0.0/16 --comment "<owner>" -j MASQUERADE

Cold.
"""

from __future__ import annotations

import ipaddress

from plugins.packet_filters import ipt_command as ipt

CHAIN = "TRIVET-POSTROUTING"
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_SAYS = ["-m", "comment", "--comment", "Trivet masquerading"]
JUMP = ["POSTROUTING", *_SAYS, "-j", CHAIN]
#: of the chain, when nothing has happened to it
REMOVAL = [["-D", *JUMP], ["-F", CHAIN], ["-X", CHAIN]]


def add(addresses: list[str], owner: str) -> None:
    for version in ipt.FAMILIES:
        interfaces = [ipaddress.ip_interface(address) for address in dict.fromkeys(addresses)]
        ours = [interface for interface in interfaces if interface.version == version]
        if ours:
            with ipt.locked():
                present = ipt.rules(version, "nat", CHAIN)
                stale = [words for words in pods(present) if _address(words) in {str(one.ip) for one in ours}]
                lines = [*ipt.removals(stale), *(_rule(interface, owner) for interface in ours)]
                if present is None or not ipt.try_restore(version, {"nat": [*ipt.existence_checks([JUMP]), *lines]}):
                    ipt.restore(version, {"nat": [*missing_chains(version, present), *lines]})


def remove(owner: str, addresses: list[str]) -> None:
    interfaces = [ipaddress.ip_interface(address) for address in addresses]
    wanted = {str(interface.ip) for interface in interfaces}
    versions = {int(interface.version) for interface in interfaces} or set(ipt.FAMILIES)
    for version in filter(ipt.is_installed, sorted(versions)):
        with ipt.locked():
            present = ipt.rules(version, "nat", CHAIN) or []
            owned = [words for words in pods(present) if ipt.comment(words) == owner]
            gone = [words for words in owned if not wanted or _address(words) in wanted]
            if not gone:
                if present:  # perhaps what somebody who was killed has left
                    clear(version)
                continue
            is_last = not _is_needed([words for words in present if words not in gone])
            if not is_last or not ipt.try_restore(version, {"nat": [*ipt.removals(gone), *REMOVAL]}):
                ipt.restore(version, {"nat": ipt.removals(gone)})
                clear(version)


def listed() -> list[tuple[str, str]]:
    """(address, owner) of all."""
    found = []
    for version in ipt.FAMILIES:
        if version == 4 or ipt.is_installed(version):
            found += [(_address(words), ipt.comment(words)) for words in pods(ipt.rules(version, "nat", CHAIN))]
    return found


def repair() -> None:
    for version in filter(ipt.is_installed, ipt.FAMILIES):
        with ipt.locked():
            present = ipt.rules(version, "nat", CHAIN)
            if pods(present):
                ipt.restore(version, {"nat": missing_chains(version, present)})


def missing_chains(version: int, present: list[list[str]] | None) -> list[list[str]]:
    """What the chain lacks. `present`: its rules."""
    lines = [] if present is not None else [[f":{CHAIN}", "-", "[0:0]"], ["-A", CHAIN, "-d", _MULTICAST[version], "-j", "RETURN"]]
    if not ipt.jumps(ipt.rules(version, "nat", "POSTROUTING"), CHAIN):
        lines.append(["-A", *JUMP])
    return lines


def clear(version: int) -> None:
    """The chain goes when neither a pod nor a port map needs it."""
    present = ipt.rules(version, "nat", CHAIN)
    if present is None or _is_needed(present):
        return
    jumps = ipt.removals(ipt.jumps(ipt.rules(version, "nat", "POSTROUTING"), CHAIN))
    ipt.restore(version, {"nat": [*jumps, ["-F", CHAIN], ["-X", CHAIN]]})


def _is_needed(present: list[list[str]]) -> bool:
    return bool(pods(present)) or any("--mark" in words for words in present)


def _rule(interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface, owner: str) -> list[str]:
    says = ["-m", "comment", "--comment", owner]
    return ["-A", CHAIN, "-s", str(interface.ip), "!", "-d", str(interface.network), *says, "-j", "MASQUERADE"]


def pods(lines: list[list[str]] | None) -> list[list[str]]:
    return [words for words in lines or [] if "-s" in words and "--comment" in words]


def _address(words: list[str]) -> str:
    return ipt.option_value(words, "-s").partition("/")[0]
