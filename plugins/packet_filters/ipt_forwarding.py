"""Rules as iptables says them, read for what they do with a packet; pure. Cold."""

from __future__ import annotations

import ipaddress

from plugins.packet_filters import forwarding
from plugins.packet_filters.forwarding import Packet, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ACTIONS = {
    "ACCEPT": forwarding.ACCEPTED, "DROP": forwarding.DROPPED, "REJECT": forwarding.DROPPED, "RETURN": forwarding.RETURNED,
    **dict.fromkeys(("LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "ULOG", "TRACE", "CT", "TOS", "DSCP"), forwarding.CONTINUE),
}  # fmt: skip
_STATES = {"NEW": forwarding.NEW, "ESTABLISHED": forwarding.ESTABLISHED}
#: options that say nothing of the packet
_SILENT = ("-m", "--comment")


def outcomes(lines: list[list[str]], chain: str, packet: Packet) -> set[str]:
    """Of a packet in `chain`; `lines` are what -S prints of the whole table."""
    policy = next((words[2] for words in lines if words[:2] == ["-P", chain]), "")
    found = forwarding.outcomes(_rules(lines, packet)(chain), _rules(lines, packet))
    return found - {forwarding.RETURNED} | {_ACTIONS[policy]} if policy and forwarding.RETURNED in found else found


def rule_outcomes(line: list[str], lines: list[list[str]], packet: Packet) -> set[str]:
    """Of a packet that meets one rule."""
    return forwarding.outcomes([_rule(line, _chains(lines), packet)], _rules(lines, packet))


def _rules(lines: list[list[str]], packet: Packet) -> Callable[[str], list[Rule]]:
    chains = _chains(lines)
    return lambda chain: [_rule(words, chains, packet) for words in lines if words[:2] == ["-A", chain]]


def _chains(lines: list[list[str]]) -> set[str]:
    return {words[1] for words in lines if words[0] == "-N"}


def _rule(words: list[str], chains: set[str], packet: Packet) -> Rule:
    holds: bool | None = True
    for is_negated, option, values in _options(words[2:]):
        if option in ("-j", "-g"):
            return _ending(holds, option, values[0], chains)
        if option not in _SILENT:
            one = _holds(option, values, packet)
            one = one if one is None else one != is_negated
            holds = False if False in (holds, one) else None if None in (holds, one) else True
    return Rule(holds, forwarding.CONTINUE)


def _options(words: list[str]) -> Iterator[tuple[bool, str, list[str]]]:
    """(whether it is negated, option, values)"""
    while words:
        is_negated = words[0] == "!"
        option, *rest = words[is_negated:] or [""]
        ends = (number for number, word in enumerate(rest) if word == "!" or word.startswith("-"))
        count = 1 if option == "--comment" else next(ends, len(rest))
        yield is_negated, option, rest[:count]
        words = rest[count:]


def _ending(holds: bool | None, option: str, target: str, chains: set[str]) -> Rule:
    if target in chains:
        return Rule(holds, forwarding.GOTO if option == "-g" else forwarding.JUMP, target)
    return Rule(holds, _ACTIONS.get(target))


def _holds(option: str, values: list[str], packet: Packet) -> bool | None:
    value = values[0] if values else ""
    if option in ("-s", "-d"):
        address = packet.source if option == "-s" else packet.destination
        return ipaddress.ip_address(address) in ipaddress.ip_network(value, strict=False) if address else None
    if option in ("-i", "-o"):
        name = packet.in_name if option == "-i" else packet.out_name
        if not name:
            return None
        return name.startswith(value[:-1]) if value.endswith("+") else name == value
    if option in ("--ctstate", "--state"):
        return any(_STATES.get(state) == packet.state for state in value.split(","))
    return None
