"""trivet-cni explain: a configuration list validated strictly, and what it would do said in words."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from cni_plugins.commands import strict, words
from runtime_core.cni import conf
from runtime_core.errors import InvalidArgument, NotFound
from runtime_core.registry import installed


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("conflist", type=Path, metavar="CONFLIST", help="a file, .conflist or .conf")


def run(arguments: argparse.Namespace) -> int:
    path: Path = arguments.conflist
    if not path.exists():
        raise NotFound(f"{path} does not exist")
    network = conf.load(path)
    print("\n".join(words.sentences(network)))
    modules = {driver.name: driver.entry for driver in installed("cni")}
    found = list(strict.complaints(json.loads(path.read_bytes()), network, lambda kind: _options(modules, kind)))
    found += [f"plugins[{number}].type: {plugin['type']!r} is none of Trivet's" for number, plugin in enumerate(network.plugins)
              if plugin["type"] not in modules]  # fmt: skip
    for complaint in found:
        print(f"{path}: {complaint}")
    return 1 if found else 0


def _options(modules: dict[str, str], kind: str) -> Any:
    """What a plugin says of itself: OPTIONS of its module, None where there is none."""
    if kind not in modules:
        return None
    try:
        return getattr(importlib.import_module(modules[kind]), "OPTIONS", None)
    except ImportError as error:
        raise InvalidArgument(f"type: {kind}'s module {modules[kind]} cannot be loaded: {error}") from error
