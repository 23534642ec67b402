"""Network configuration lists: read from a directory, checked before anything runs."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime_core.cni import document as json_document
from runtime_core.cni.request import is_plugin_name
from runtime_core.cni.result import VERSIONS
from runtime_core.errors import InvalidArgument, NotFound

#: it becomes part of file names, here and in IPAM plugins
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_MOST_BYTES = 1024 * 1024
_OBJECTS = ("ipam", "capabilities", "runtimeConfig", "args", "dns")


@dataclass(frozen=True, slots=True)
class NetworkList:
    """A network configuration list (specification section 1), checked."""

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


def load_named(directory: Path, name: str) -> NetworkList:
    """The list called `name`, lists before single configurations, as cnitool finds it.

    NotFound when none is; InvalidArgument when none is and a file could not be read: it might be the one.
    """
    failure: InvalidArgument | None = None
    files = candidates(directory)
    for path in sorted(files, key=lambda path: path.suffix != ".conflist"):
        try:
            network = load(path)
        except InvalidArgument as error:
            failure = failure or error
            continue
        if network.name == name:
            return network
    raise failure or NotFound(f"no network {name!r} in {directory}: {len(files)} other configurations are there")


def candidates(directory: Path) -> list[Path]:
    """Files that may be configurations, by name; [] when the directory is missing."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix in (".conflist", ".conf", ".json"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidArgument(f"{directory}: {error.strerror}") from error


def load(path: Path) -> NetworkList:
    """A .conflist, with the plugins of the directory beside it that has the network's name; or a single configuration
    wrapped as a list."""
    document = _read(path)
    if isinstance(document, dict) and "type" not in document and not _truth(document, "loadOnlyInlinedPlugins", str(path)):
        document = {**document, "plugins": _plugins(document, path)}
    return parse(document, str(path))


def _plugins(document: dict[str, Any], path: Path) -> Any:
    """What the list itself has, and then what others have put into its directory, by file name."""
    name, plugins = document.get("name"), document.get("plugins", [])
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(plugins, list):
        return plugins  # refused in a moment
    beside = path.parent / name
    return [*plugins, *(_read(file) for file in candidates(beside) if file.suffix == ".conf")]


def _read(path: Path) -> Any:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise InvalidArgument(f"{path}: not a file")
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from error
    if len(text) > _MOST_BYTES:
        raise InvalidArgument(f"{path}: larger than {_MOST_BYTES} bytes")
    try:
        found = json_document.read(text)
    except ValueError as error:
        raise InvalidArgument(f"{path}: {error}") from error
    try:
        json_document.check(found)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from error
    return found


def parse(document: Any, where: str) -> NetworkList:
    if not isinstance(document, dict):
        raise InvalidArgument(f"{where}: not a JSON object")
    if "plugins" not in document and "type" in document:
        document = {**{k: document[k] for k in ("name", "cniVersion") if k in document}, "plugins": [document]}
    name, plugins = document.get("name"), document.get("plugins")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidArgument(f"{where}: name {name!r} is not a network name")
    if not isinstance(plugins, list) or not plugins:
        raise InvalidArgument(f"{where}: plugins is missing or empty")
    for number, plugin in enumerate(plugins):
        _check_plugin(plugin, f"{where}: plugins[{number}]")
    return NetworkList(
        name,
        _version(document, where),
        tuple(plugins),
        disable_check=_truth(document, "disableCheck", where),
        disable_gc=_truth(document, "disableGC", where),
    )


def parse_for_removal(document: Any, where: str) -> NetworkList:
    """What of a list is good enough for DEL: a configuration that has become bad must not keep what it once made.

    InvalidArgument only where there is no network name or no plugin left that could be called.
    """
    try:
        return parse(document, where)
    except InvalidArgument:
        if not isinstance(document, dict) or not isinstance(document.get("plugins", []), list):
            raise
    plugins = [plugin for plugin in document.get("plugins", [document]) if _is_callable(plugin)]
    version = document.get("cniVersion")
    return parse(
        {
            "name": document.get("name"),
            "cniVersion": version if version in VERSIONS else VERSIONS[-1],
            "plugins": [
                {key: value for key, value in plugin.items() if key not in _OBJECTS or isinstance(value, dict)}
                for plugin in plugins
            ],
        },
        where,
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


def _is_callable(plugin: Any) -> bool:
    return isinstance(plugin, dict) and is_plugin_name(plugin.get("type"))


def _check_plugin(plugin: Any, where: str) -> None:
    if not isinstance(plugin, dict):
        raise InvalidArgument(f"{where} is not an object")
    if not is_plugin_name(plugin.get("type")):
        raise InvalidArgument(f"{where}.type {plugin.get('type')!r} is not a plugin name")
    for key in _OBJECTS:
        if not isinstance(plugin.get(key) or {}, dict):
            raise InvalidArgument(f"{where}.{key} is not an object")


def _version(document: dict[str, Any], where: str) -> str:
    offered = document.get("cniVersions")
    if offered:
        if not isinstance(offered, list):
            raise InvalidArgument(f"{where}: cniVersions is not a list")
        known = [version for version in (*offered, document.get("cniVersion")) if version in VERSIONS]
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
