"""Network configuration lists: read from a directory, checked before anything runs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime_core.cni.result import VERSIONS
from runtime_core.errors import InvalidArgument

#: A plugin's type is a bare file name: nothing else is ever executed (CVE-2021-20206).
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class NetworkList:
    name: str
    version: str
    plugins: tuple[dict[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False


def load_first(directory: Path) -> NetworkList | None:
    """The first valid list of a directory by file name, or None; InvalidArgument when all there are is invalid."""
    failure: InvalidArgument | None = None
    for path in candidates(directory):
        try:
            return load(path)
        except InvalidArgument as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return None


def candidates(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix in (".conflist", ".conf", ".json"))
    except FileNotFoundError:
        return []


def load(path: Path) -> NetworkList:
    """A .conflist, or a single configuration wrapped as a list."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path}: {error}") from error
    return parse(document, str(path))


def parse(document: Any, where: str) -> NetworkList:
    if not isinstance(document, dict):
        raise InvalidArgument(f"{where}: not a JSON object")
    if "plugins" not in document:
        document = {**{k: document[k] for k in ("name", "cniVersion") if k in document}, "plugins": [document]}
    name, plugins = document.get("name"), document["plugins"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidArgument(f"{where}: name {name!r} is not a network name")
    if not isinstance(plugins, list) or not plugins:
        raise InvalidArgument(f"{where}: plugins is empty")
    for number, plugin in enumerate(plugins):
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
            raise InvalidArgument(f"{where}: plugins[{number}].type {kind!r} is not a plugin name")
    return NetworkList(
        name,
        _version(document, where),
        tuple(plugins),
        disable_check=_truth(document, "disableCheck", where),
        disable_gc=_truth(document, "disableGC", where),
    )


def plugin_config(
    network: NetworkList, plugin: dict[str, Any], previous: dict[str, Any] | None, capabilities: dict[str, Any]
) -> dict[str, Any]:
    """What one plugin of a list is given on stdin (specification section 3)."""
    config = {key: value for key, value in plugin.items() if key != "capabilities"}
    config |= {"name": network.name, "cniVersion": network.version}
    wanted = plugin.get("capabilities") or {}
    runtime = {key: value for key, value in capabilities.items() if wanted.get(key)}
    if runtime:
        config["runtimeConfig"] = runtime
    if previous is not None:
        config["prevResult"] = previous
    return config


def _version(document: dict[str, Any], where: str) -> str:
    offered = document.get("cniVersions")
    if offered:
        known = [version for version in offered if version in VERSIONS]
        if known:
            return str(max(known, key=VERSIONS.index))
    version = document.get("cniVersion", "0.1.0")
    if version not in VERSIONS:
        raise InvalidArgument(f"{where}: cniVersion {version!r} is not one of {', '.join(VERSIONS)}")
    return str(version)


def _truth(document: dict[str, Any], key: str, where: str) -> bool:
    value = document.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise InvalidArgument(f"{where}: {key} is not a boolean")
    return value
