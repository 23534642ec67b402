"""Admission of forwarded traffic by iptables.

    filter  FORWARD: … -j TRIVET-FORWARD
            TRIVET-FORWARD: -j TRIVET-ISOLATION
                            -s 10.1.0.5 --comment "<owner>" -j <the administrator's chain>;  -d …
                            -d 10.1.0.5 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT;  -s 10.1.0.5 -j ACCEPT
            TRIVET-ISOLATION: -i cni0 -o cni0 -j DROP | RETURN;  -i cni0 -j TRIVET-ISOLATION-TO
            TRIVET-ISOLATION-TO: -o cni0 -j DROP

The jump is appended to FORWARD, but before the first rule that may refuse what a pod sends or is answered: after that it
would have no meaning. All of it is made in the tables of the node's iptables, and in those of the other kind where these
may drop what the pods send: nothing that one table lets pass is let pass by the other.
Which bridges are isolated is said in the comments of the pods' rules, so that the isolation goes with the last of them.
The administrator's chain is made when it is missing, and goes with the last pod when it is empty. Cold.
"""

from __future__ import annotations

import ipaddress
import re

from plugins.packet_filters import ipt_command as ipt
from plugins.packet_filters import ipt_forwarding, refusals
from plugins.packet_filters.forwarding import DROPPED, ESTABLISHED, NEW, Packet
from runtime_core.errors import InvalidArgument
from runtime_core.interfaces.packet_filter import AdmissionOptions

_CHAIN, _ISOLATION, _TO = "TRIVET-FORWARD", "TRIVET-ISOLATION", "TRIVET-ISOLATION-TO"
_SAYS = ["-m", "comment", "--comment", "Trivet firewall"]
_JUMP = ["FORWARD", *_SAYS, "-j", _CHAIN]
_ADMIN = "CNI-ADMIN"
_CHAIN_NAME = re.compile(r"[^\s\"'\\!-][^\s\"'\\]{0,27}")
_BRIDGE = " | "


def add(addresses: list[str], options: AdmissionOptions, owner: str) -> None:
    if options.admin_chain and not _CHAIN_NAME.fullmatch(options.admin_chain):
        raise InvalidArgument(f"iptablesAdminChainName: {options.admin_chain!r} is not the name of a chain")
    for version in ipt.FAMILIES:
        rules = _rules(version, addresses, options, owner)
        for kind in _needed(version, addresses, options) if rules else ():
            with ipt.locked():
                _put(version, kind, rules, options, owner)


def remove(owner: str) -> bool:
    """False when there was nothing."""
    had = False
    for version, kind in _all():
        with ipt.locked():
            pods = _pods(ipt.rules(version, "filter", _CHAIN, kind))
            gone = [words for words in pods if _is_same(words, owner)]
            others = [words for words in pods if not _is_same(words, owner)]
            if gone:
                had = True
                admins = {ipt.option_value(words, "-j") for words in gone} - {"ACCEPT"}
                rest = _isolation(others) if others else _ends(version, kind, admins)
                ipt.restore(version, {"filter": [*ipt.removals(gone), *rest]}, kind)
    return had


def listed() -> list[tuple[str, str]]:
    """(address, owner) of all."""
    found = []
    for version, kind in _all() or [(4, "")]:
        accepted = [words for words in _pods(ipt.rules(version, "filter", _CHAIN, kind)) if _accepts_source(words)]
        found += [(ipt.option_value(words, "-s").partition("/")[0], _owner(words)) for words in accepted]
    return list(dict.fromkeys(found))


def missing(addresses: list[str], options: AdmissionOptions, owner: str) -> list[str]:
    said = []
    for version in ipt.FAMILIES:
        expected = _rules(version, addresses, options, owner)
        for kind in _needed(version, addresses, options) if expected else ():
            said += _lacking(version, kind, expected, options, owner)
    return said


def repair() -> None:
    """Restore the chains that the pods' rules need, and the isolation of bridges."""
    for version, kind in _all():
        with ipt.locked():
            present = ipt.rules(version, "filter", _CHAIN, kind)
            pods = _pods(present)
            if pods:
                admin = next(iter({ipt.option_value(words, "-j") for words in pods} - {"ACCEPT"}), "")
                lines = _missing_chains(version, kind, present, AdmissionOptions(admin_chain=admin))
                ipt.restore(version, {"filter": [*lines, *_isolation(pods)]}, kind)


def overruled() -> list[tuple[int, str]]:
    """(IP version, kind of iptables) of the tables in which what is admitted here passes."""
    found = []
    for version in filter(ipt.is_installed, ipt.FAMILIES):
        found += [(version, kind) for kind in (ipt.default_kind(version), ipt.other_kind(version)) if kind]
    return found


def _needed(version: int, addresses: list[str], options: AdmissionOptions) -> list[str]:
    """The kinds of iptables in whose tables the addresses are admitted: the node's own, and another that may drop them."""
    other = ipt.other_kind(version)
    sent = refusals.packets(addresses, options.bridge) if other else []
    return ["", other] if other and other in refusals.kinds_that_may_drop(version, sent) else [""]


def _all() -> list[tuple[int, str]]:
    """(IP version, kind) of all tables that there are to look at."""
    versions = [version for version in ipt.FAMILIES if ipt.is_installed(version)]
    others = [(version, ipt.other_kind(version)) for version in versions]
    return [(version, "") for version in versions] + [
        (version, kind) for version, kind in others if kind and refusals.has_table(version, kind)
    ]


def _put(version: int, kind: str, rules: list[list[str]], options: AdmissionOptions, owner: str) -> None:
    present = ipt.rules(version, "filter", _CHAIN, kind)
    others = [words for words in _pods(present) if not _is_same(words, owner)]
    earlier = ipt.removals([words for words in _pods(present) if _is_same(words, owner)])
    lines = [*earlier, *rules, *_isolation(others + rules)]
    checks = ipt.existence_checks([_JUMP, [_CHAIN, "-j", _ISOLATION]])
    if present is None or not ipt.try_restore(version, {"filter": [*checks, *lines]}, kind):
        ipt.restore(version, {"filter": [*_missing_chains(version, kind, present, options), *lines]}, kind)


def _lacking(version: int, kind: str, expected: list[list[str]], options: AdmissionOptions, owner: str) -> list[str]:
    present, said = ipt.rules(version, "filter", _CHAIN, kind), []
    pods = _pods(present)
    own = [(ipt.comment(words), *_normalized_rule(words)) for words in pods if _is_same(words, owner)]
    if set(own) != {(ipt.comment(words), *_normalized_rule(words)) for words in expected}:
        said.append(f"the admission of {', '.join(sorted({_address(words) for words in expected}))}")
    said += [" ".join(line) for line in _missing_chains(version, kind, present, options)]
    for chain in (_ISOLATION, _TO):
        there = sorted(_normalized_rule(words) for words in ipt.rules(version, "filter", chain, kind) or [] if words[0] == "-A")
        wanted = sorted(_normalized_rule(words) for words in _isolation(pods) if words[:2] == ["-A", chain])
        if there != wanted:
            said.append(f"the rules of chain {chain}")
    return said


def _rules(version: int, addresses: list[str], options: AdmissionOptions, owner: str) -> list[list[str]]:
    policy = f"{_BRIDGE}{'isolated' if options.is_isolated else 'same-bridge'} {options.bridge}" if options.bridge else ""
    says = ["-m", "comment", "--comment", owner + policy]
    lines = []
    for ip in dict.fromkeys(ipaddress.ip_interface(address).ip for address in addresses):
        if ip.version == version:
            for end in ("-s", "-d"):
                lines.append(["-A", _CHAIN, end, str(ip), *says, "-j", options.admin_chain or _ADMIN])
            answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
            lines.append(["-A", _CHAIN, "-d", str(ip), *answers, *says, "-j", "ACCEPT"])
            lines.append(["-A", _CHAIN, "-s", str(ip), *says, "-j", "ACCEPT"])
    return lines


def _missing_chains(version: int, kind: str, present: list[list[str]] | None, options: AdmissionOptions) -> list[list[str]]:
    """What the rules stand on and is not there."""
    lines, everything = [], ipt.rules(version, "filter", kind=kind) or []
    for chain in (options.admin_chain or _ADMIN, _CHAIN, _ISOLATION, _TO):
        if ["-N", chain] not in everything:
            lines.append(["-N", chain])
    if not ipt.jumps(present, _ISOLATION):
        lines.append(["-I", _CHAIN, "1", "-j", _ISOLATION])
    return [*lines, *_entry(everything)]


def _entry(everything: list[list[str]]) -> list[list[str]]:
    """The jump from FORWARD, where it is not there or too late."""
    forward = [words for words in everything if words[:2] == ["-A", "FORWARD"]]
    others = [words for words in everything if words not in forward]
    jumps = ipt.jumps(forward, _CHAIN)
    sent = [Packet(4, state) for state in (NEW, ESTABLISHED)]
    found = [[ipt_forwarding.rule_outcomes(words, others, packet) for packet in sent] for words in forward]
    place = next((number for number, one in enumerate(found, 1) if any(DROPPED in each for each in one)), 0)
    if jumps and not any({DROPPED} in one for one in found[: forward.index(jumps[0])]):
        return []
    how = ["-I", "FORWARD", str(place)] if place else ["-A", "FORWARD"]
    return [*ipt.removals(jumps), [*how, *_JUMP[1:]]]


def _isolation(pods: list[list[str]]) -> list[list[str]]:
    """The two chains, made anew from what the pods' rules say."""
    policies = {ipt.comment(words).partition(_BRIDGE)[2] for words in pods} - {""}
    isolated = {policy.split(" ")[1] for policy in policies if policy.startswith("isolated ")}
    lines = [[f":{_ISOLATION}", "-", "[0:0]"], [f":{_TO}", "-", "[0:0]"]]
    for bridge in sorted({policy.split(" ")[1] for policy in policies}):
        lines.append(["-A", _ISOLATION, "-i", bridge, "-o", bridge, "-j", "DROP" if bridge in isolated else "RETURN"])
        lines.append(["-A", _ISOLATION, "-i", bridge, "-j", _TO])
        lines.append(["-A", _TO, "-o", bridge, "-j", "DROP"])
    return lines


def _ends(version: int, kind: str, admin_chains: set[str]) -> list[list[str]]:
    """After the last pod."""
    everything = ipt.rules(version, "filter", kind=kind) or []
    lines = ipt.removals([words for words in ipt.jumps(everything, _CHAIN) if words[1] == "FORWARD"])
    chains = [chain for chain in (_CHAIN, _ISOLATION, _TO) if ["-N", chain] in everything]
    lines += [["-F", chain] for chain in chains] + [["-X", chain] for chain in chains]
    for admin in sorted(admin_chains):
        is_used = any(words[:2] == ["-A", admin] for words in everything)
        if not is_used and all(words[1] == _CHAIN for words in ipt.jumps(everything, admin)):
            lines.append(["-X", admin])
    return lines


def _pods(lines: list[list[str]] | None) -> list[list[str]]:
    return [words for words in lines or [] if words[0] == "-A" and "--comment" in words]


def _owner(words: list[str]) -> str:
    return ipt.comment(words).partition(_BRIDGE)[0]


def _is_same(words: list[str], owner: str) -> bool:
    """Container and interface tell whose it is: a network can be renamed."""
    return _owner(words).split(" ")[1:] == owner.split(" ")[1:]


def _address(words: list[str]) -> str:
    return (ipt.option_value(words, "-s") or ipt.option_value(words, "-d")).partition("/")[0]


def _accepts_source(words: list[str]) -> bool:
    return "-s" in words and ipt.option_value(words, "-j") == "ACCEPT"


def _normalized_rule(words: list[str]) -> tuple[str, ...]:
    """What a rule does, however iptables says it back."""
    addresses = [ipt.option_value(words, option).partition("/")[0] for option in ("-s", "-d")]
    return (
        *addresses,
        ipt.option_value(words, "-i"),
        ipt.option_value(words, "-o"),
        ipt.option_value(words, "-j"),
        ipt.option_value(words, "--ctstate"),
    )
