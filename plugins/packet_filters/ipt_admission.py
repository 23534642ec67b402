"""Admission of forwarded traffic by iptables.

    filter  FORWARD: … -j TRIVET-FORWARD
            TRIVET-FORWARD: -j TRIVET-ISOLATION
                            -s 10.1.0.5 --comment "<owner>" -j <the administrator's chain>;  -d …
                            -d 10.1.0.5 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT;  -s 10.1.0.5 -j ACCEPT
            TRIVET-ISOLATION: -i cni0 -o cni0 -j DROP | RETURN;  -i cni0 -j TRIVET-ISOLATION-TO
            TRIVET-ISOLATION-TO: -o cni0 -j DROP

The jump is appended to FORWARD, but before a last rule that refuses everything: after that it would have no meaning.
Which bridges are isolated is said in the comments of the pods' rules, so that the isolation goes with the last of them.
The administrator's chain is made when it is missing, and goes with the last pod when it is empty. Cold.
"""

from __future__ import annotations

import ipaddress
import re

from plugins.packet_filters import ipt_command as ipt
from runtime_core.errors import InvalidArgument
from runtime_core.interfaces.packet_filter import AdmissionOptions

_CHAIN, _ISOLATION, _TO = "TRIVET-FORWARD", "TRIVET-ISOLATION", "TRIVET-ISOLATION-TO"
_SAYS = ["-m", "comment", "--comment", "Trivet firewall"]
_JUMP = ["FORWARD", *_SAYS, "-j", _CHAIN]
_ADMIN = "CNI-ADMIN"
_CHAIN_NAME = re.compile(r"[^\s\"'\\!-][^\s\"'\\]{0,27}")
_BRIDGE = " | "
_REFUSALS = ("DROP", "REJECT")


def add(addresses: list[str], options: AdmissionOptions, owner: str) -> None:
    if options.admin_chain and not _CHAIN_NAME.fullmatch(options.admin_chain):
        raise InvalidArgument(f"iptablesAdminChainName: {options.admin_chain!r} is not the name of a chain")
    for version in ipt.FAMILIES:
        rules = _rules(version, addresses, options, owner)
        if rules:
            with ipt.alone():
                present = ipt.rules(version, "filter", _CHAIN)
                others = [words for words in _pods(present) if not _is_same(words, owner)]
                earlier = ipt.removals([words for words in _pods(present) if _is_same(words, owner)])
                lines = [*earlier, *rules, *_isolation(others + rules)]
                checks = ipt.checks([_JUMP, [_CHAIN, "-j", _ISOLATION]])
                if present is None or not ipt.is_restored(version, {"filter": [*checks, *lines]}):
                    ipt.restore(version, {"filter": [*_foundation(version, present, options), *lines]})


def remove(owner: str) -> bool:
    """False when there was nothing."""
    had = False
    for version in filter(ipt.is_there, ipt.FAMILIES):
        with ipt.alone():
            pods = _pods(ipt.rules(version, "filter", _CHAIN))
            gone = [words for words in pods if _is_same(words, owner)]
            others = [words for words in pods if not _is_same(words, owner)]
            if gone:
                had = True
                rest = _isolation(others) if others else _ends(version, {ipt.after(words, "-j") for words in gone} - {"ACCEPT"})
                ipt.restore(version, {"filter": [*ipt.removals(gone), *rest]})
    return had


def listed() -> list[tuple[str, str]]:
    """(address, owner) of all."""
    found = []
    for version in ipt.FAMILIES:
        if version == 4 or ipt.is_there(version):
            accepted = [words for words in _pods(ipt.rules(version, "filter", _CHAIN)) if _accepts_source(words)]
            found += [(ipt.after(words, "-s").partition("/")[0], _owner(words)) for words in accepted]
    return found


def lacking(addresses: list[str], options: AdmissionOptions, owner: str) -> list[str]:
    said = []
    for version in ipt.FAMILIES:
        expected = _rules(version, addresses, options, owner)
        if not expected:
            continue
        present = ipt.rules(version, "filter", _CHAIN)
        pods = _pods(present)
        own = [words for words in pods if _is_same(words, owner)]
        if {(ipt.comment(words), *_essence(words)) for words in own} != {
            (ipt.comment(words), *_essence(words)) for words in expected
        }:
            said.append(f"the admission of {', '.join(addresses)}")
        said += [" ".join(line) for line in _foundation(version, present, options)]
        for chain in (_ISOLATION, _TO):
            there = sorted(_essence(words) for words in ipt.rules(version, "filter", chain) or [] if words[0] == "-A")
            wanted = sorted(_essence(words) for words in _isolation(pods) if words[:2] == ["-A", chain])
            if there != wanted:
                said.append(f"the rules of chain {chain}")
    return said


def mend() -> None:
    """What the pods' rules stand on, and the isolation that they speak of."""
    for version in filter(ipt.is_there, ipt.FAMILIES):
        with ipt.alone():
            present = ipt.rules(version, "filter", _CHAIN)
            pods = _pods(present)
            if pods:
                admin = next(iter({ipt.after(words, "-j") for words in pods} - {"ACCEPT"}), "")
                lines = _foundation(version, present, AdmissionOptions(admin_chain=admin))
                ipt.restore(version, {"filter": [*lines, *_isolation(pods)]})


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


def _foundation(version: int, present: list[list[str]] | None, options: AdmissionOptions) -> list[list[str]]:
    """What the rules stand on and is not there."""
    lines = []
    admin = options.admin_chain or _ADMIN
    if ipt.rules(version, "filter", admin) is None:
        lines.append(["-N", admin])
    if present is None:
        lines.append(["-N", _CHAIN])
    for chain in (_ISOLATION, _TO):
        if ipt.rules(version, "filter", chain) is None:
            lines.append(["-N", chain])
    if not ipt.jumps(present, _ISOLATION):
        lines.append(["-I", _CHAIN, "1", "-j", _ISOLATION])
    forward = [words for words in ipt.rules(version, "filter", "FORWARD") or [] if words[0] == "-A"]
    if not ipt.jumps(forward, _CHAIN):
        place = next((number for number, words in enumerate(forward, 1) if _refuses_all(words)), 0)
        how = ["-I", "FORWARD", str(place)] if place else ["-A", "FORWARD"]
        lines.append([*how, *_JUMP[1:]])
    return lines


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


def _ends(version: int, admin_chains: set[str]) -> list[list[str]]:
    """After the last pod."""
    lines = ipt.removals(ipt.jumps(ipt.rules(version, "filter", "FORWARD"), _CHAIN))
    everything = ipt.rules(version, "filter") or []
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


def _accepts_source(words: list[str]) -> bool:
    return "-s" in words and ipt.after(words, "-j") == "ACCEPT"


def _essence(words: list[str]) -> tuple[str, ...]:
    """What a rule does, however iptables says it back."""
    addresses = [ipt.after(words, option).partition("/")[0] for option in ("-s", "-d")]
    return (*addresses, ipt.after(words, "-i"), ipt.after(words, "-o"), ipt.after(words, "-j"), ipt.after(words, "--ctstate"))


def _refuses_all(words: list[str]) -> bool:
    """A rule of FORWARD without any condition that lets nothing pass."""
    return words[2:3] == ["-j"] and words[3] in _REFUSALS
