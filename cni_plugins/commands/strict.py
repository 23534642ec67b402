"""A configuration list held against what its plugins know: every unknown key and every wrong type, by its path; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cni_plugins.commands import known_options
from runtime_core.cni.conf import NetworkList

_JSON = {str: "a string", int: "a number", bool: "true or false", dict: "an object", list: "a list"}
Options = dict[str, Any]


def complaints(document: dict[str, Any], network: NetworkList, options_of: Callable[[str], Options | None]) -> Iterator[str]:
    """What is wrong, or cannot be checked. `options_of` gives a plugin's own OPTIONS, None where it has none."""
    if "plugins" in document or "type" not in document:
        yield from _compared(document, known_options.OF_LISTS, "")
    for number, plugin in enumerate(network.plugins):
        where = f"plugins[{number}]"
        known = _known(plugin["type"], options_of, known_options.OF_TYPE)
        if known is None:
            yield f"{where}: not checked: nothing is known about the options of {plugin['type']!r}"
            continue
        yield from _compared(plugin, {**known_options.OF_PLUGINS, **known}, where)
        yield from _ipam(plugin, where, options_of)


def _ipam(plugin: dict[str, Any], where: str, options_of: Callable[[str], Options | None]) -> Iterator[str]:
    ipam = plugin.get("ipam")
    if not isinstance(ipam, dict) or not ipam:
        return
    kind = ipam.get("type")
    known = _known(kind, options_of, known_options.OF_IPAM) if isinstance(kind, str) else None
    if known is None:
        yield f"{where}.ipam: not checked: nothing is known about the options of {kind!r}"
    else:
        yield from _compared(ipam, {"type": str, **known}, f"{where}.ipam")


def _known(kind: str, options_of: Callable[[str], Options | None], ours: dict[str, Options]) -> Options | None:
    own = options_of(kind)
    if own is None:
        return ours.get(kind)
    return {**dict.fromkeys(own, Any), **ours.get(kind, {})} if not isinstance(own, dict) else own


def _compared(value: Any, expected: Any, where: str) -> Iterator[str]:
    if isinstance(expected, dict):
        if not isinstance(value, dict):
            yield f"{where}: {value!r} is not an object"
            return
        for key, inner in value.items():
            path = f"{where}.{key}" if where else key
            if key not in expected:
                yield f"{path}: unknown"
            else:
                yield from _compared(inner, expected[key], path)
    elif isinstance(expected, list):
        if not isinstance(value, list):
            yield f"{where}: {value!r} is not a list"
            return
        for number, inner in enumerate(value):
            yield from _compared(inner, expected[0], f"{where}[{number}]")
    elif expected in _JSON and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
        yield f"{where}: {value!r} is not {_JSON[expected]}"
