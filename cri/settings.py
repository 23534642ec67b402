"""The settings of trivet-cri, from /etc/trivet/config.yaml and options; docs/operations.md describes each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from runtime_core.errors import InvalidArgument
from runtime_core.streaming.client import StreamSettings

#: a DNS label, as Kubernetes has it
_HANDLER = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LONGEST_SILENCE = 86400
DEFAULT_FILE = Path("/etc/trivet/config.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeHandler:
    """What a RuntimeClass's handler means."""

    #: driver of trivet.runtime
    runtime: str = "native"
    #: the driver's own matter
    settings: Mapping[str, Any] = field(default_factory=dict)


#: what there is without any configuration; "" is a pod without RuntimeClass
HANDLERS = {"": RuntimeHandler(), "trivet": RuntimeHandler()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    listen: Annotated[str, "socket"] = "unix:///run/trivet/cri.sock"
    root: Annotated[Path, "images and records"] = Path("/var/lib/trivet")
    state: Annotated[Path, "what a reboot ends"] = Path("/run/trivet")
    cni_conf_dir: Annotated[Path, "network configuration lists"] = Path("/etc/cni/net.d")
    cni_bin_dir: Annotated[tuple[str, ...], "foreign plugins; may be repeated"] = ("/opt/cni/bin",)
    registry_dir: Annotated[Path, "<host>/hosts.toml"] = Path("/etc/trivet/registries.d")
    cgroup_driver: Annotated[Literal["cgroupfs"], "as the kubelet's"] = "cgroupfs"
    cgroup_manager: Annotated[str, "driver of trivet.cgroup (default: what the machine has)"] = ""
    network: Annotated[str, "driver of trivet.network"] = "cni"
    packet_filter: Annotated[str, "driver of trivet.packetfilter"] = "nftables"
    snapshotter: Annotated[str, "driver of trivet.snapshotter"] = "overlayfs"
    image_verifier: Annotated[str, "driver of trivet.image.verifier"] = "accept"
    pull_silence: Annotated[float, "seconds without a byte after which a registry is given up"] = 60.0
    pull_deadline: Annotated[float, "seconds that a registry has for a manifest or a token"] = 60.0
    pull_least_rate: Annotated[int, "bytes a second, over a minute, that a blob must bring"] = 1024
    largest_layer: Annotated[int, "bytes that an image's layer may have when it is unpacked"] = 1 << 36
    log_level: Annotated[Literal["debug", "info", "warning", "error"], "least important line that is logged"] = "info"
    #: exec, attach and port-forward
    streaming: StreamSettings = field(default_factory=StreamSettings)
    #: beside HANDLERS
    runtime_handlers: Mapping[str, RuntimeHandler] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.runtime_handlers:
            if name and not _HANDLER.fullmatch(name):
                raise InvalidArgument(f"runtime-handlers: {name!r} cannot be a RuntimeClass's handler")

        for key, seconds in (("pull-silence", self.pull_silence), ("pull-deadline", self.pull_deadline)):
            if not 0 < seconds <= _LONGEST_SILENCE:
                raise InvalidArgument(f"{key}: {seconds} is not between 0 and {_LONGEST_SILENCE} seconds")
        if self.pull_least_rate < 0:
            raise InvalidArgument(f"pull-least-rate: {self.pull_least_rate} is negative")
        if self.largest_layer <= 0:
            raise InvalidArgument(f"largest-layer: {self.largest_layer} is not positive")

    def handlers(self) -> dict[str, RuntimeHandler]:
        """The configured runtime handlers over the built-in ones, by name."""
        return {**HANDLERS, **self.runtime_handlers}
