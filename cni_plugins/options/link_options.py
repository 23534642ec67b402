"""Options that several main and chained plugins have, checked; each error names the field. Cold."""

from __future__ import annotations

import re

from runtime_core.errors import InvalidArgument
from runtime_core.network.links import LONGEST_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_MOST_MTU = 65536
_MOST_VLAN = 4094


class InvalidEnvironment(InvalidArgument):
    """A parameter of the call, not of the configuration, is wrong: the specification has a code of its own for it."""

    cni_code = 4


def interface_name(name: str, field: str) -> str:
    """`name`, checked as the kernel would; InvalidArgument names `field`."""
    if not is_interface_name(name):
        raise InvalidArgument(f"{field}: {name!r} is not an interface name of at most {LONGEST_NAME} bytes")
    return name


def is_interface_name(name: str) -> bool:
    """As the kernel sees it (dev_valid_name)."""
    try:
        length = len(name.encode(errors="surrogateescape"))
    except UnicodeEncodeError:
        return False
    if not 0 < length <= LONGEST_NAME or name in (".", ".."):
        return False
    return not any(character in "/:\0" or character.isspace() for character in name)


def mtu(request: Request) -> int:
    """The option mtu in bytes, 0 when it is missing; InvalidArgument outside of 0..65536."""
    value: int = request.option("mtu", int, 0)
    if not 0 <= value <= _MOST_MTU:
        raise InvalidArgument(f"mtu: {value} is not between 0 and {_MOST_MTU}")
    return value


def mac(request: Request) -> str:
    """The hardware address that is asked for, "" where none is: runtimeConfig.mac goes before args.cni.mac, that before
    MAC in CNI_ARGS, that before the configuration's own."""
    arguments = request.section("args").get("cni") or {}
    wanted = {
        "runtimeConfig.mac": request.section("runtimeConfig").get("mac"),
        "args.cni.mac": arguments.get("mac") if isinstance(arguments, dict) else None,
        "CNI_ARGS: MAC": request.args.get("MAC"),
        "mac": request.config.get("mac"),
    }
    return next((hardware_address(value, field) for field, value in wanted.items() if value), "")


def hardware_address(value: Any, field: str) -> str:
    """A unicast MAC address in lower case with colons; InvalidArgument names `field`."""
    if not isinstance(value, str) or not _MAC.fullmatch(value):
        raise InvalidArgument(f"{field}: {value!r} is not a hardware address")
    if int(value[:2], 16) & 1:
        raise InvalidArgument(f"{field}: {value!r} is a group's address, not one interface's")
    return value.lower().replace("-", ":")


def number(section: dict[str, Any], key: str, field: str, first: int, last: int) -> int | None:
    """section[key], None when it is missing; InvalidArgument outside of first..last."""
    value = section.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not first <= value <= last:
        raise InvalidArgument(f"{field}: {value!r} is not a number from {first} to {last}")
    return value


def vlan(section: dict[str, Any], key: str, field: str, first: int = 1) -> int | None:
    """A VLAN id, None when it is missing; InvalidArgument outside of `first`..4094."""
    return number(section, key, field, first, _MOST_VLAN)


def choice(request: Request, key: str, choices: tuple[str, ...]) -> str:
    """config[key], the first of `choices` when it is missing or empty."""
    value: str = request.option(key, str, "") or choices[0]
    if value not in choices:
        raise InvalidArgument(f"{key}: {value!r} is not one of {', '.join(choices)}")
    return value
