"""trivet-cni explain: validates a configuration list strictly, and describes what it would do."""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cni_plugins.commands import summary, validation
from cni_plugins.commands.validation import Complaint
from runtime_core.cni import conf
from runtime_core.cni.conf import NetworkList
from runtime_core.errors import InvalidArgument, NotFound
from runtime_core.registry import installed


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("conflist", type=Path, metavar="CONFLIST", help="a file, .conflist or .conf")


def run(arguments: argparse.Namespace) -> int:
    path: Path = arguments.conflist
    if not path.exists():
        raise NotFound(f"{path} does not exist")
    modules = {driver.name: driver.entry for driver in installed("cni")}
    try:
        network = conf.load(path)
    except InvalidArgument as error:  # no runtime would take it: what else is wrong is said all the same
        print(f"trivet-cni: {error}", file=sys.stderr)
        found = list(_of_document(path, _loose_plugins(path), modules))
        _print(path, found)
        return 1
    found = list(_of_document(path, list(network.plugins), modules))
    print("\n".join(summary.describe_network(_remove_problems(network, found))))
    for number, plugin in enumerate(network.plugins):
        if plugin["type"] not in modules:
            found.append((("plugins", number, "type"), f"{plugin['type']!r} is none of Trivet's"))
    _print(path, found)
    return 1 if found else 0


def _print(path: Path, found: list[Complaint]) -> None:
    for place, complaint in found:
        print(f"{path}: {validation.format_place(place)}{': ' if place else ''}{complaint}")


def _of_document(path: Path, plugins: list[Any], modules: dict[str, str]) -> Iterator[Complaint]:
    """What the tables of options tell, and then what the plugins themselves tell of the rest."""
    document = _document(path)
    found = list(validation.find_problems(document, plugins, lambda kind: _options(modules, kind)))
    yield from found
    rest = {"plugins": copy.deepcopy(plugins)}
    validation.remove_places(rest, [place for place, _words in found if len(place) > 2])
    said = {place for place, _words in found}
    for number, plugin in enumerate(rest["plugins"]):
        if isinstance(plugin, dict):
            for place, complaint in validation.find_refusals(plugin, _checks(plugin, modules), ("plugins", number)):
                if not any(place[: len(one)] == one or one[: len(place)] == place for one in said):
                    yield place, complaint


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        return {}
    return document if isinstance(document, dict) else {}


def _loose_plugins(path: Path) -> list[Any]:
    """Of a document that is no valid list."""
    document = _document(path)
    plugins = document.get("plugins", [document] if "type" in document else [])
    return plugins if isinstance(plugins, list) else []


def _remove_problems(network: NetworkList, found: list[Complaint]) -> NetworkList:
    """The network as far as nothing is wrong with it: there is no saying what the rest would do."""
    left = {"plugins": [copy.deepcopy(plugin) for plugin in network.plugins]}
    validation.remove_places(left, [place for place, _words in found if len(place) > 2 and place[2] != "type"])
    return NetworkList(network.name, network.version, tuple(left["plugins"]), network.disable_check, network.disable_gc)


def _checks(plugin: dict[str, Any], modules: dict[str, str]) -> Iterator[Callable[[Any], object]]:
    """`Options` of the plugin's module and of its IPAM plugin's: made of a request, they refuse it or not."""
    ipam = plugin.get("ipam")
    for kind in (plugin.get("type"), ipam.get("type") if isinstance(ipam, dict) else None):
        if isinstance(kind, str) and kind in modules:
            check = getattr(_module(modules, kind), "Options", None)
            if callable(check):
                yield check


def _options(modules: dict[str, str], kind: str) -> Any:
    """OPTIONS of the plugin's module, None without it."""
    return getattr(_module(modules, kind), "OPTIONS", None) if kind in modules else None


def _module(modules: dict[str, str], kind: str) -> Any:
    try:
        return importlib.import_module(modules[kind])
    except ImportError as error:
        raise InvalidArgument(f"type: {kind}'s module {modules[kind]} cannot be loaded: {error}") from error
