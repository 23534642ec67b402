"""Validates a configuration list: finds every problem, with its place; pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cni_plugins.commands import known_options
from runtime_core.cni.request import Request
from runtime_core.errors import InvalidArgument
from runtime_core.kernel.decimal_number import parse_decimal

_JSON = {str: "a string", int: "a number", bool: "true or false", dict: "an object", list: "a list"}
Options = dict[str, Any]
#: keys and numbers on the way to a value
Place = tuple[str | int, ...]
Complaint = tuple[Place, str]
_PLACE = re.compile(r"[A-Za-z_][\w.\[\]]*")
_STEP = re.compile(r"[^.\[\]]+")
_MOST_REFUSALS = 100


def find_problems(
    document: dict[str, Any], plugins: list[Any], options_of: Callable[[str], Options | None]
) -> Iterator[Complaint]:
    """Unknown keys, wrong types, wrong values, and what cannot be checked. `options_of` gives a plugin's own OPTIONS, None
    where it has none."""
    if "plugins" in document or "type" not in document:
        yield from _compare(document, known_options.LIST_OPTIONS, ())
    for number, plugin in enumerate(plugins):
        if not isinstance(plugin, dict) or not isinstance(plugin.get("type"), str):
            continue  # refused by every runtime, in other words
        where: Place = ("plugins", number)
        known = _known(plugin["type"], options_of, known_options.OPTIONS_BY_TYPE)
        if known is None:
            yield where, f"not checked: nothing is known about the options of {plugin['type']!r}"
            continue
        yield from _compare(plugin, {**known_options.COMMON_PLUGIN_OPTIONS, **known}, where)
        yield from _ipam(plugin, where, options_of)


def find_refusals(plugin: dict[str, Any], checks: Iterable[Callable[[Request], object]], where: Place) -> Iterator[Complaint]:
    """What the plugins themselves would refuse, one thing after the other: each is left out before the next look."""
    left = copy.deepcopy(plugin)
    for check in checks:
        for _time in range(_MOST_REFUSALS):
            try:
                check(Request(config=left, container_id="explain", interface="eth0"))
            except InvalidArgument as error:
                place, _, words = str(error).partition(":")
                steps = parse_place(place) if _PLACE.fullmatch(place) else ()
                yield (*where, *steps), words.strip() if steps else str(error)
                if not steps or not remove_places(left, [steps]):
                    break
            else:
                break


def format_place(place: Place) -> str:
    """plugins[0].ipam.ranges"""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")


def parse_place(text: str) -> Place:
    found = ((step, parse_decimal(step)) for step in _STEP.findall(text))
    return tuple(step if number is None else number for step, number in found)


def remove_places(document: Any, places: Iterable[Place]) -> bool:
    """Take the values at `places` away; whether all were there. Later ones first: the numbers of a list stay right."""
    found = True
    for place in sorted(set(places), key=lambda one: [str(step).zfill(9) for step in one], reverse=True):
        holder = document
        try:
            for step in place[:-1]:
                holder = holder[step]
            del holder[place[-1]]
        except (KeyError, IndexError, TypeError):
            found = False
    return found


def _ipam(plugin: dict[str, Any], where: Place, options_of: Callable[[str], Options | None]) -> Iterator[Complaint]:
    ipam = plugin.get("ipam")
    if not isinstance(ipam, dict) or not ipam:
        return
    kind = ipam.get("type")
    known = _known(kind, options_of, known_options.COMMON_IPAM_OPTIONS) if isinstance(kind, str) else None
    if known is None:
        yield (*where, "ipam"), f"not checked: nothing is known about the options of {kind!r}"
    else:
        yield from _compare(ipam, {"type": str, **known}, (*where, "ipam"))


def _known(kind: str, options_of: Callable[[str], Options | None], ours: dict[str, Options]) -> Options | None:
    own = options_of(kind)
    if own is None:
        return ours.get(kind)
    return {**dict.fromkeys(own, Any), **ours.get(kind, {})} if not isinstance(own, dict) else own


def _compare(value: Any, expected: Any, where: Place) -> Iterator[Complaint]:
    if isinstance(expected, dict):
        if not isinstance(value, dict):
            yield where, f"{value!r} is not an object"
            return
        for key, inner in value.items():
            if key not in expected:
                yield (*where, key), "unknown"
            else:
                yield from _compare(inner, expected[key], (*where, key))
    elif isinstance(expected, list):
        if not isinstance(value, list):
            yield where, f"{value!r} is not a list"
            return
        for number, inner in enumerate(value):
            yield from _compare(inner, expected[0], (*where, number))
    elif expected in _JSON:
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            yield where, f"{value!r} is not {_JSON[expected]}"
    elif expected is not Any:
        yield from _check_grammar(value, expected, where)


def _check_grammar(value: Any, grammar: Callable[[Any, str], object], where: Place) -> Iterator[Complaint]:
    if value == "":
        return  # as if it were not there
    try:
        grammar(value, "")
    except InvalidArgument as error:
        yield where, str(error).removeprefix(": ")
