"""One CNI call as a plugin sees it, by executable or in-process. Cold.

A plugin is a module with `add`, `delete`, `check`, `gc` and `status`, each taking a
`Request`; `add` returns a result in the shape of runtime_core.cni.result.
"""

from __future__ import annotations

import re

from runtime_core.cni import result as cni_result
from runtime_core.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


_VALID = "cni.dev/valid-attachments"
#: what the runtimes call it that were written after the first text of specification 1.1
_EARLIER_VALID = "cni.dev/attachments"
#: containerd writes what it gives by capability as Go calls it: HostPort. The reference plugins, which are written in Go,
#: do not see the difference.
_SPELLINGS = {
    name.lower(): name
    for name in (
        "hostPort", "containerPort", "protocol", "hostIP", "ingressRate", "ingressBurst", "egressRate", "egressBurst",
        "unshapedSubnets", "shapedSubnets", "subnet", "rangeStart", "rangeEnd", "gateway",
    )
}  # fmt: skip
#: A plugin's type is a bare file name: nothing else is ever executed (CVE-2021-20206).
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Request:
    """CNI specification 1.1, section 2: parameters and the network configuration."""

    __slots__ = ("args", "config", "container_id", "delegate", "interface", "netns", "packet_filter", "path", "previous")

    def __init__(
        self,
        *,
        config: dict[str, Any],
        container_id: str = "",
        netns: str = "",
        interface: str = "",
        args: dict[str, str] | None = None,
        path: str = "",
        previous: dict[str, Any] | None = None,
        delegate: Callable[[str, str, Request], dict[str, Any]] | None = None,
        packet_filter: str = "",
    ) -> None:
        """`packet_filter`: the node's driver, by its entry point, for runtime_core.network.packet_filter."""
        self.config, self.container_id, self.netns, self.interface = _normalize_spelling(config), container_id, netns, interface
        self.args, self.path, self.previous = args or {}, path, previous
        self.delegate, self.packet_filter = delegate, packet_filter

    @property
    def network(self) -> str:
        """The network's name, from the configuration."""
        return str(self.config["name"])

    @property
    def owner(self) -> str:
        """Who owns what this attachment takes."""
        return f"{self.network} {self.container_id} {self.interface}"

    def ipam(self, verb: str) -> dict[str, Any]:
        """Delegate to the plugin that config.ipam.type names; ADD gives a result in Trivet's own shape."""
        kind: Any = self.section("ipam").get("type")
        if not is_plugin_name(kind):
            raise InvalidArgument(f"ipam.type: {kind!r} is not a plugin name")
        if self.delegate is None:
            raise InvalidArgument(f"ipam.type: {kind!r} is no plugin that gives addresses: it asks for some itself")
        answer = self.delegate(kind, verb, self)
        return cni_result.read(answer, f"result of {kind}", self.config.get("cniVersion", "0.1.0")) if verb == "ADD" else {}

    def section(self, key: str) -> dict[str, Any]:
        """The object config[key], {} when it is missing."""
        value = self.config.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidArgument(f"{key}: {value!r} is not an object")
        return value

    def valid_attachments(self) -> set[tuple[str, str]] | None:
        """(container id, interface) of what GC must keep. None where the caller does not say (cnitool does not):
        then nothing may be taken away."""
        if _VALID not in self.config and _EARLIER_VALID not in self.config:
            return None
        listed = self.config.get(_VALID, self.config.get(_EARLIER_VALID))
        if listed is None:
            return set()  # what an empty list of Go's is
        try:
            if not isinstance(listed, list):  # an empty string would keep nothing
                raise TypeError
            return {(str(entry["containerID"]), str(entry["ifname"])) for entry in listed}
        except (TypeError, KeyError):
            raise InvalidArgument(f"{_VALID} is not a list of objects with containerID and ifname") from None

    def option(self, key: str, kind: type, default: Any) -> Any:
        """config[key], InvalidArgument when it has another type than `kind`."""
        value = self.config.get(key, default)
        if value is not default and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise InvalidArgument(f"{key}: {value!r} is not a {kind.__name__}")
        return value


def previous_result(config: dict[str, Any], verb: str) -> dict[str, Any] | None:
    """config.prevResult in Trivet's own shape; a malformed one is none for DEL: what was made goes in any case."""
    document = config.get("prevResult")
    try:
        return cni_result.read(document) if document is not None else None
    except InvalidArgument:
        if verb != "DEL":
            raise
        return None


def _normalize_spelling(config: dict[str, Any]) -> dict[str, Any]:
    runtime = config.get("runtimeConfig")
    if not isinstance(runtime, dict) or not runtime:
        return config
    return {**config, "runtimeConfig": {key: _normalize_value(key, value) for key, value in runtime.items()}}


def _normalize_value(key: str, value: Any) -> Any:
    """Of the capabilities whose objects' keys are known; others may hold names that are somebody's own."""
    return _normalize_keys(value) if key in ("portMappings", "bandwidth", "ipRanges") else value


def _normalize_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {_SPELLINGS.get(str(key).lower(), key): inner for key, inner in value.items()}
    return [_normalize_keys(inner) for inner in value] if isinstance(value, list) else value


def is_plugin_name(kind: Any) -> bool:
    return isinstance(kind, str) and _TYPE.fullmatch(kind) is not None


def parse_args(text: str) -> dict[str, str]:
    """CNI_ARGS: KEY=value;KEY=value."""
    found = {}
    for pair in filter(None, text.split(";")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidArgument(f"CNI_ARGS: {pair!r} is not KEY=VALUE")
        found[key] = value
    return found
