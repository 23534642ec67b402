"""What the configuration of tuning asks for, checked; each error names the field. Cold."""

from __future__ import annotations

import re

from cni_plugins.options import link_options
from runtime_core.errors import FailedPrecondition, InvalidArgument, from_oserror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request

DATA_DIRECTORY = "/run/cni/tuning"
ALLOW_LIST = "/etc/cni/tuning/allowlist.conf"
_MOST_MTU, _MOST_QUEUE = 65536, (1 << 31) - 1
_MOST_ALLOW_LIST = 1 << 20


class Options:
    """args.cni goes before the configuration; of hardware addresses, before runtimeConfig and CNI_ARGS too."""

    __slots__ = ("all_multicast", "mac", "mtu", "promiscuous", "queue_length", "sysctls")

    def __init__(self, request: Request) -> None:
        arguments = request.section("args").get("cni") or {}
        if not isinstance(arguments, dict):
            raise InvalidArgument(f"args.cni: {arguments!r} is not an object")
        self.sysctls = _sysctls(request, arguments)
        self.mac = _mac(request, arguments)
        self.mtu = _chosen_number(request, arguments, "mtu", _MOST_MTU) or 0
        self.queue_length = _chosen_number(request, arguments, "txQLen", _MOST_QUEUE)
        self.promiscuous = bool(_chosen_switch(request, arguments, "promisc"))
        self.all_multicast = _chosen_switch(request, arguments, "allmulti")
        data_directory(request)


def data_directory(request: Request) -> str:
    """The directory of the saved files, which must be an absolute path."""
    value: str = request.option("dataDir", str, "") or DATA_DIRECTORY
    if not value.startswith("/") or "\0" in value:
        raise InvalidArgument(f"dataDir: {value!r} is not an absolute path")
    return value


def sysctl_path(key: str, interface: str) -> str:
    """Below /proc/sys: dots are slashes, and the first IFNAME is the container's interface, whose dots are its own."""
    parts = key.replace(".", "/").split("/")
    if parts[0] != "net" or len(parts) < 2 or not all(parts) or "\0" in key:
        raise InvalidArgument(f"sysctl: {key!r} is not a setting of the network (net.…)")
    return "/".join(parts).replace("IFNAME", interface, 1)


def check_allowed(sysctls: dict[str, str], allow_list: str) -> None:
    """Each key must fit one of the regular expressions in the file `allow_list`, when there is such a file."""
    try:
        with open(allow_list, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file.read(_MOST_ALLOW_LIST).splitlines()]
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_oserror(error, f"reading {allow_list}") from error
    patterns = [_pattern(line, allow_list) for line in lines if line]
    for key in sysctls:
        if not any(pattern.search(key) for pattern in patterns):
            raise FailedPrecondition(f"sysctl: {key} is not allowed by {allow_list}")


def _pattern(line: str, allow_list: str) -> re.Pattern[str]:
    try:
        return re.compile(line)
    except re.error as error:
        raise FailedPrecondition(f"{allow_list}: {line!r} is not a regular expression: {error}") from error


def _sysctls(request: Request, arguments: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for field, section in (("sysctl", request.config.get("sysctl")), ("args.cni.sysctl", arguments.get("sysctl"))):
        if section is None:
            continue
        if not isinstance(section, dict):
            raise InvalidArgument(f"{field}: {section!r} is not an object")
        for key, value in section.items():
            if not isinstance(value, str) or "\0" in value:
                raise InvalidArgument(f"{field}.{key}: {value!r} is not a string")
            found[key] = value
    paths: dict[str, str] = {}
    for key in found:
        path = sysctl_path(key, request.interface or "IFNAME")
        if path in paths:
            raise InvalidArgument(f"sysctl: {key} and {paths[path]} are the same setting")
        paths[path] = key
    return found


def _mac(request: Request, arguments: dict[str, Any]) -> str:
    wanted = {
        "args.cni.mac": arguments.get("mac"),
        "runtimeConfig.mac": request.section("runtimeConfig").get("mac"),
        "CNI_ARGS: MAC": request.args.get("MAC"),
        "mac": request.config.get("mac"),
    }
    return next((link_options.hardware_address(value, field) for field, value in wanted.items() if value), "")


def _chosen_number(request: Request, arguments: dict[str, Any], key: str, most: int) -> int | None:
    chosen = link_options.number(arguments, key, f"args.cni.{key}", 0, most)
    return chosen if chosen is not None else link_options.number(request.config, key, key, 0, most)


def _chosen_switch(request: Request, arguments: dict[str, Any], key: str) -> bool | None:
    chosen: bool | None = None
    for field, section in ((key, request.config), (f"args.cni.{key}", arguments)):
        value = section.get(key)
        if value is not None and not isinstance(value, bool):
            raise InvalidArgument(f"{field}: {value!r} is not a bool")
        chosen = chosen if value is None else value
    return chosen
