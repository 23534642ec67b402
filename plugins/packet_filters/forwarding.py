"""What becomes of a packet in the rules of somebody else, as far as it can be told; pure. Cold.

A rule's conditions hold, do not hold, or may hold (None): of a packet not everything is known, and not every condition is
understood. So a chain has several possible outcomes, and where there is only one it is certain.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ACCEPTED, DROPPED, RETURNED = "accepted", "dropped", "returned"
JUMP, GOTO, CONTINUE = "jump", "goto", "continue"
#: states of a connection, as the kernel numbers them
ESTABLISHED, NEW = 2, 8
#: the kernel follows no more jumps, either
_DEEPEST = 16


class Packet:
    """One that is forwarded; what is not known is "" or b""."""

    __slots__ = ("destination", "in_name", "out_name", "source", "state", "version")

    def __init__(
        self, version: int, state: int, *, source: bytes = b"", destination: bytes = b"", in_name: str = "", out_name: str = ""
    ) -> None:
        """`version` of IP; addresses packed; names of the interfaces by which it comes and goes."""
        self.version, self.state, self.source, self.destination = version, state, source, destination
        self.in_name, self.out_name = in_name, out_name


class Rule:
    """`holds`: whether its conditions do; `action`: an outcome, JUMP or GOTO to `target`, or CONTINUE; None when nobody can
    tell what it does with the packet."""

    __slots__ = ("action", "holds", "target")

    def __init__(self, holds: bool | None, action: str | None, target: str = "") -> None:
        self.holds, self.action, self.target = holds, action, target


def outcomes(rules: Iterable[Rule], chain: Callable[[str], Iterable[Rule]], depth: int = 0) -> set[str]:
    """Of a chain with these rules; `chain` gives those of another one by its name. RETURNED is its end."""
    possible: set[str] = set()
    for rule in rules:
        if rule.holds is False or rule.action == CONTINUE:
            continue
        found = _of_rule(rule, chain, depth)
        is_certain = rule.holds is True and (rule.action == GOTO or RETURNED not in found or rule.action == RETURNED)
        possible |= found if rule.action in (GOTO, RETURNED) else found - {RETURNED}
        if is_certain:
            return possible
    return possible | {RETURNED}


def _of_rule(rule: Rule, chain: Callable[[str], Iterable[Rule]], depth: int) -> set[str]:
    if rule.action is None or (rule.action in (JUMP, GOTO) and depth >= _DEEPEST):
        return {ACCEPTED, DROPPED, RETURNED}
    if rule.action in (JUMP, GOTO):
        return outcomes(chain(rule.target), chain, depth + 1)
    return {rule.action}
