"""What becomes of a packet in rules as iptables says them: certain, possible, or not to be told."""

from __future__ import annotations

import ipaddress

import pytest

from plugins.packet_filters import ipt_command, ipt_forwarding
from plugins.packet_filters.forwarding import ACCEPTED, DROPPED, ESTABLISHED, NEW, Packet

_POD = ipaddress.ip_address("10.77.0.2").packed
_SENT = Packet(4, NEW, source=_POD, in_name="cni0")
_ANSWER = Packet(4, ESTABLISHED, destination=_POD, out_name="cni0")
_ANY = Packet(4, NEW)
_EITHER = {ACCEPTED, DROPPED}


@pytest.mark.parametrize(
    ("rules", "packet", "expected"),
    [
        ("-P FORWARD ACCEPT", _SENT, {ACCEPTED}),
        ("-P FORWARD DROP", _SENT, {DROPPED}),
        ("-P FORWARD DROP; -A FORWARD -i cni0 -j ACCEPT", _SENT, {ACCEPTED}),
        ("-P FORWARD DROP; -A FORWARD -i cni0 -j ACCEPT", _ANSWER, _EITHER),
        ("-P FORWARD DROP; -A FORWARD ! -i cni0 -j ACCEPT", _SENT, {DROPPED}),
        ("-P FORWARD DROP; -A FORWARD -i cni+ -j ACCEPT", _SENT, {ACCEPTED}),
        ("-P FORWARD DROP; -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", _SENT, {DROPPED}),
        ("-P FORWARD DROP; -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", _ANSWER, {ACCEPTED}),
        ("-P FORWARD DROP; -A FORWARD -m conntrack ! --ctstate INVALID -j ACCEPT", _SENT, {ACCEPTED}),
        ("-P FORWARD ACCEPT; -A FORWARD -m state --state INVALID -j DROP", _SENT, {ACCEPTED}),
        ("-P FORWARD ACCEPT; -A FORWARD -s 10.77.0.0/24 -j DROP", _SENT, {DROPPED}),
        ("-P FORWARD ACCEPT; -A FORWARD ! -s 10.77.0.0/24 -j DROP", _SENT, {ACCEPTED}),
        ("-P FORWARD ACCEPT; -A FORWARD -s 10.77.0.0/24 -j DROP", _ANY, _EITHER),
        ("-P FORWARD ACCEPT; -A FORWARD -s 10.77.0.0/24 -p tcp -m tcp --dport 25 -j REJECT", _SENT, _EITHER),
        ("-P FORWARD ACCEPT; -A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN SYN -j DROP", _SENT, _EITHER),
        ("-P FORWARD ACCEPT; -A FORWARD -m comment --comment -j -j DROP", _SENT, {DROPPED}),
        ("-P FORWARD ACCEPT; -A FORWARD -j LOG --log-prefix x; -A FORWARD -j REJECT --reject-with tcp-reset", _SENT, {DROPPED}),
        ("-P FORWARD DROP; -N one; -A FORWARD -j one; -A one -j RETURN; -A one -j ACCEPT", _SENT, {DROPPED}),
        ("-P FORWARD DROP; -N one; -A FORWARD -j one; -A FORWARD -j ACCEPT; -A one -i x -j DROP", _SENT, {ACCEPTED}),
        ("-P FORWARD DROP; -N one; -A FORWARD -g one; -A FORWARD -j ACCEPT", _SENT, {DROPPED}),
        ("-P FORWARD ACCEPT; -N one; -N two; -A FORWARD -i cni0 -j one; -A one -j two; -A two -j DROP", _SENT, {DROPPED}),
        ("-P FORWARD ACCEPT; -N one; -N two; -A FORWARD -i cni0 ! -o cni0 -j one; -A one -j two; -A two -j DROP", _SENT, _EITHER),
        ("-P FORWARD DROP; -A FORWARD -j NFQUEUE --queue-num 0", _SENT, _EITHER),
        ("-P FORWARD ACCEPT; -N one; -A FORWARD -j one; -A one -j one", _SENT, _EITHER),
    ],
)  # fmt: skip
def test_outcomes(rules: str, packet: Packet, expected: set[str]) -> None:
    lines = [ipt_command._words(line) for line in rules.split("; ")]
    assert ipt_forwarding.outcomes(lines, "FORWARD", packet) == expected
