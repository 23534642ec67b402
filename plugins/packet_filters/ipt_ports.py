"""Port maps by iptables: a chain per container, and a rule that leads there.

    nat  PREROUTING, OUTPUT: -m addrtype --dst-type LOCAL -j TRIVET-HOSTPORTS
         TRIVET-HOSTPORTS: -p tcp -m multiport --dports 8080,8443 <conditions> --comment "<owner>" -j TRIVET-DN-<hash>
         TRIVET-DN-<hash>: -s 10.1.0.0/16 -p tcp --dport 8080 -j MARK --set-xmark 0x2000/0x2000    # or another's chain
                           -s 127.0.0.0/8 …
                           -p tcp --dport 8080 -j DNAT --to-destination 10.1.0.5:80
         TRIVET-POSTROUTING: see ipt_masquerade
    raw  PREROUTING: ! -i lo -d 127.0.0.0/8 -j DROP    # because of route_localnet (CVE-2020-8558)

Our jumps are appended: rules of services come first (CVE-2019-9946). Within our own chain the oldest container does, so that
of two that want one port the first keeps it, and the other has it after that. Cold.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re

from plugins.packet_filters import ipt_command as ipt
from plugins.packet_filters import ipt_masquerade
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.interfaces.packet_filter import PortMap, PortOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_CHAIN, _PREFIX = "TRIVET-HOSTPORTS", "TRIVET-DN-"
_SAYS = ["-m", "comment", "--comment", "Trivet port maps"]
_LOCAL = ["-m", "addrtype", "--dst-type", "LOCAL", *_SAYS, "-j", _CHAIN]
_GUARD = ["PREROUTING", "!", "-i", "lo", "-d", "127.0.0.0/8", *_SAYS, "-j", "DROP"]
_HOOKS = ("PREROUTING", "OUTPUT")
#: what one multiport match takes
_MOST_PORTS = 15
_CHAIN_NAME = re.compile(r"[^\s\"'\\!-][^\s\"'\\]{0,27}")


def add(addresses: list[str], ports: list[PortMap], options: PortOptions, owner: str) -> None:
    for interface in [ipaddress.ip_interface(address) for address in addresses]:
        fitting = _fitting(interface, ports)
        if fitting:
            lines = _rules(interface, fitting, options, owner)
            with ipt.locked():
                _put(interface.version, lines, options, owner)


def remove(owner: str) -> list[tuple[PortMap, str]]:
    had = []
    for version in filter(ipt.is_installed, ipt.FAMILIES):
        with ipt.locked():
            present, chain = ipt.rules(version, "nat", _CHAIN), _chain(owner)
            own = ipt.rules(version, "nat", chain)
            if own is None:
                if present is not None:  # perhaps what somebody who was killed has left
                    _clear(version)
                continue
            had += mapped(own)
            entries = ipt.jumps(present, chain)
            lines = [*ipt.removals(entries), ["-F", chain], ["-X", chain]]
            if len(entries) + 1 < len(present or []):
                ipt.restore(version, {"nat": lines})
            elif not ipt.try_restore(version, _last(version, lines)):
                if ipt.rules(version, "nat", chain) is not None:  # of a restore each table is done or not
                    ipt.restore(version, {"nat": lines})
                _clear(version)
    return had


def listed() -> list[tuple[PortMap, str, str]]:
    """(port map, pod's address, owner) of all."""
    found = []
    for version in ipt.FAMILIES:
        if version == 4 or ipt.is_installed(version):
            lines = ipt.rules(version, "nat") or []
            owners = {ipt.option_value(words, "-j"): ipt.comment(words) for words in lines if words[:2] == ["-A", _CHAIN]}
            for chain, owner in owners.items():
                own = [words for words in lines if words[:2] == ["-A", chain]]
                found += [(port, address, owner) for port, address in mapped(own)]
    return found


def missing(addresses: list[str], ports: list[PortMap], options: PortOptions, owner: str) -> list[str]:
    words = []
    for interface in [ipaddress.ip_interface(address) for address in addresses]:
        fitting, version, chain = _fitting(interface, ports), interface.version, _chain(owner)
        if not fitting:
            continue
        own = ipt.rules(version, "nat", chain) or []
        there = mapped(own)
        words += [str(port) for port in fitting if (_as_listed(port), str(interface.ip)) not in there]
        expected = _rules(interface, fitting, options, owner)
        entries = ipt.jumps(ipt.rules(version, "nat", _CHAIN), chain)
        if len(entries) != sum(line[1] == _CHAIN for line in expected):
            words.append(f"a rule of chain {_CHAIN}")
        if len(own) - 1 != sum(line[1] == chain for line in expected):
            words.append(f"a rule of chain {chain}")
        words += [f"{table}: {' '.join(line)}" for table, lines in _missing(version, options).items() for line in lines]
    return words


def repair() -> None:
    """What the containers' chains stand on; of their own rules no more is known than is there."""
    for version in filter(ipt.is_installed, ipt.FAMILIES):
        with ipt.locked():
            lines = ipt.rules(version, "nat") or []
            own = [words for words in lines if words[:1] == ["-A"] and words[1].startswith(_PREFIX)]
            if not own:
                continue
            bits = {
                int(mark.partition("/")[0], 16).bit_length() - 1
                for words in own
                if (mark := ipt.option_value(words, "--set-xmark"))
            }
            for options in [PortOptions(mark_bit=bit) for bit in sorted(bits)] or [PortOptions(is_masquerading=False)]:
                ipt.restore(version, _missing(version, options))


def _fitting(interface: Interface, ports: list[PortMap]) -> list[PortMap]:
    return [port for port in ports if not port.host_ip or ipaddress.ip_address(port.host_ip).version == interface.version]


def _put(version: int, lines: list[list[str]], options: PortOptions, owner: str) -> None:
    chain = _chain(owner)
    present = ipt.rules(version, "nat", _CHAIN)
    lines = [[f":{chain}", "-", "[0:0]"], *_entries(present, chain, lines), *(line for line in lines if line[1] == chain)]
    raw = ipt.existence_checks([_GUARD]) if version == 4 and options.is_masquerading else []
    if present is not None and ipt.try_restore(
        version, {"raw": raw, "nat": [*ipt.existence_checks(_base_rules(options)), *lines]}
    ):
        return
    foundation = _missing(version, options)
    foundation["nat"] += lines
    try:
        ipt.restore(version, foundation)
    except ipt.Refused as error:
        if options.mark_chain and ipt.rules(version, "nat", options.mark_chain) is None:
            raise FailedPrecondition(f"externalSetMarkChain: table nat has no chain {options.mark_chain}") from error
        raise


def _entries(present: list[list[str]] | None, chain: str, lines: list[list[str]]) -> list[list[str]]:
    """What leads to the container's chain, in the place of what did so before."""
    present = [words for words in present or [] if words[0] == "-A"]
    earlier = ipt.jumps(present, chain)
    place = present.index(earlier[0]) + 1 if earlier else len(present) + 1
    entries = [line for line in lines if line[1] == _CHAIN]
    return [*ipt.removals(earlier), *(["-I", _CHAIN, str(place + n), *line[2:]] for n, line in enumerate(entries))]


def _rules(interface: Interface, ports: list[PortMap], options: PortOptions, owner: str) -> list[list[str]]:
    """Of the container's chain, and those that lead there."""
    conditions, field = (
        (options.conditions_v4, "conditionsV4") if interface.version == 4 else (options.conditions_v6, "conditionsV6")
    )
    if conditions and conditions[0][:1] not in ("-", "!"):
        raise InvalidArgument(f"{field}: {conditions[0]!r} is not of iptables")
    chain, lines = _chain(owner), []
    for protocol in dict.fromkeys(port.protocol for port in ports):
        numbers = list(dict.fromkeys(str(port.host_port) for port in ports if port.protocol == protocol))
        for first in range(0, len(numbers), _MOST_PORTS):
            some = ["-p", protocol, "-m", "multiport", "--dports", ",".join(numbers[first : first + _MOST_PORTS])]
            lines.append(["-A", _CHAIN, *some, *conditions, "-m", "comment", "--comment", owner, "-j", chain])
    for port in ports:
        ip = ipaddress.ip_address(port.host_ip) if port.host_ip else None
        where = ["-d", str(ip)] if ip is not None and not ip.is_unspecified else []
        match = ["-A", chain, *where, "-p", port.protocol, "--dport", str(port.host_port)]
        lines += [[*match, *source, *_mark(options)] for source in _sources(interface, options)]
        pod = f"[{interface.ip}]" if interface.version == 6 else str(interface.ip)
        lines.append([*match, "-j", "DNAT", "--to-destination", f"{pod}:{port.container_port}"])
    return lines


def _sources(interface: Interface, options: PortOptions) -> list[list[str]]:
    """Of packets that need the node's address."""
    if not options.is_masquerading:
        return []
    if options.masquerades_all:
        return [[]]
    return [["-s", str(interface.network)], *([["-s", "127.0.0.0/8"]] if interface.version == 4 else [])]


def _mark(options: PortOptions) -> list[str]:
    if not options.mark_chain:
        return ["-j", "MARK", "--set-xmark", _bit(options)]
    if not _CHAIN_NAME.fullmatch(options.mark_chain):
        raise InvalidArgument(f"externalSetMarkChain: {options.mark_chain!r} is not the name of a chain")
    return ["-j", options.mark_chain]


def _bit(options: PortOptions) -> str:
    return f"{1 << options.mark_bit:#x}/{1 << options.mark_bit:#x}"


def _base_rules(options: PortOptions) -> list[list[str]]:
    """The rules of table nat on which the containers' chains stand."""
    marked = [ipt_masquerade.JUMP, [ipt_masquerade.CHAIN, *_masquerade(options)]]
    return [*([hook, *_LOCAL] for hook in _HOOKS), *(marked if options.is_masquerading and not options.mark_chain else [])]


def _masquerade(options: PortOptions) -> list[str]:
    return ["-m", "mark", "--mark", _bit(options), "-j", "MASQUERADE"]


def _missing(version: int, options: PortOptions) -> dict[str, list[list[str]]]:
    """What the containers' chains stand on and is not there, by table."""
    nat = [] if ipt.rules(version, "nat", _CHAIN) is not None else [[f":{_CHAIN}", "-", "[0:0]"]]
    nat += [["-A", hook, *_LOCAL] for hook in _HOOKS if not ipt.jumps(ipt.rules(version, "nat", hook), _CHAIN)]
    if not options.is_masquerading:
        return {"nat": nat}
    if not options.mark_chain:
        present = ipt.rules(version, "nat", ipt_masquerade.CHAIN)
        nat += ipt_masquerade.missing_chains(version, present)
        if not any(ipt.option_value(words, "--mark") == _bit(options) for words in present or []):
            nat.append(["-A", ipt_masquerade.CHAIN, *_masquerade(options)])
    raw = [["-A", *_GUARD]] if version == 4 and not _guards() else []
    return {"nat": nat, "raw": raw}


def _guards() -> list[list[str]]:
    return [words for words in ipt.rules(4, "raw", "PREROUTING") or [] if ipt.comment(words) == _SAYS[-1]]


def _last(version: int, lines: list[list[str]]) -> dict[str, list[list[str]]]:
    """The last container's removal and that of all on which it stood, when nothing has happened to it."""
    present = ipt.rules(version, "nat", ipt_masquerade.CHAIN) or []
    if ipt_masquerade.pods(present):
        rest = ipt.removals([words for words in present if "--mark" in words])
    else:
        rest = ipt_masquerade.REMOVAL if present else []
    nat = [*lines, *(["-D", hook, *_LOCAL] for hook in _HOOKS), ["-X", _CHAIN], *rest]
    return {"raw": [["-D", *_GUARD]] if version == 4 and present else [], "nat": nat}


def _clear(version: int) -> None:
    """What no container needs any more. The chain of all goes last: while it is there, the next DEL looks for the rest."""
    if any(words[0] == "-A" for words in ipt.rules(version, "nat", _CHAIN) or []):
        return
    marks = [words for words in ipt.rules(version, "nat", ipt_masquerade.CHAIN) or [] if "--mark" in words]
    guards = ipt.removals(_guards()) if version == 4 else []
    ipt.restore(version, {"raw": guards, "nat": ipt.removals(marks)})
    ipt_masquerade.clear(version)
    if ipt.rules(version, "nat", _CHAIN) is not None:
        hooks = [words for hook in _HOOKS for words in ipt.jumps(ipt.rules(version, "nat", hook), _CHAIN)]
        ipt.restore(version, {"nat": [*ipt.removals(hooks), ["-X", _CHAIN]]})


def mapped(lines: list[list[str]]) -> list[tuple[PortMap, str]]:
    """(port map, pod's address) of the rules of a container's chain."""
    found = []
    for words in lines:
        if ipt.option_value(words, "-j") == "DNAT":
            address, _colon, port = ipt.option_value(words, "--to-destination").rpartition(":")
            host, number = ipt.option_value(words, "-d").partition("/")[0], int(ipt.option_value(words, "--dport"))
            found.append((PortMap(ipt.option_value(words, "-p"), number, int(port), host), address.strip("[]")))
    return found


def _as_listed(port: PortMap) -> PortMap:
    is_one = port.host_ip and not ipaddress.ip_address(port.host_ip).is_unspecified
    return PortMap(port.protocol, port.host_port, port.container_port, port.host_ip if is_one else "")


def _chain(owner: str) -> str:
    """Container and interface tell whose it is: a network can be renamed."""
    return _PREFIX + hashlib.sha256(" ".join(owner.split(" ")[1:]).encode()).hexdigest()[:16]
