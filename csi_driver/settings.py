"""What trivet-csi can be told, by the section `csi` of /etc/trivet/config.yaml and by options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from runtime_core.errors import InvalidArgument

DEFAULT_FILE = Path("/etc/trivet/config.yaml")
SECTION = "csi"
#: CSI GetPluginInfo: a domain name of at most 63 characters
_DRIVER = re.compile(r"[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?")
_LONGEST_NODE_ID = 256
#: CSI, Topology: an optional prefix and a name; a value is as a name, and both are Kubernetes' labels
_LABEL = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of trivet-csi, checked; docs/csi.md describes each."""

    endpoint: Annotated[str, "socket"] = "unix:///run/trivet/csi.sock"
    node_id: Annotated[str, "this node's name for the cluster (default: the host's)"] = ""
    root: Annotated[Path, "volumes and records"] = Path("/var/lib/trivet/csi")
    kubelet_dir: Annotated[Path, "the kubelet's directory: nothing is mounted outside of it"] = Path("/var/lib/kubelet")
    driver_name: Annotated[str, "name of the driver"] = "hostpath.csi.trivet.dev"
    backend: Annotated[str, "driver of trivet.volume"] = "loop"
    registration: Annotated[bool, "register with the kubelet; without, a registrar sidecar has to"] = True
    attach: Annotated[bool, "volumes have to be attached (ControllerPublishVolume)"] = True
    max_volumes: Annotated[int, "volumes that this node takes; 0: no limit"] = 0
    health_port: Annotated[int, "HTTP port on 127.0.0.1 for /healthz and /metrics; 0: none"] = 0
    log_level: Annotated[Literal["debug", "info", "warning", "error"], "least important line that is logged"] = "info"
    #: the back end's own matter
    backend_settings: Mapping[str, Any] = field(default_factory=dict)
    #: beside topology.<driver name>/node: labels of where this node's volumes can be reached
    topology: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _DRIVER.fullmatch(self.driver_name):
            raise InvalidArgument(f"driver-name: {self.driver_name!r} is not a domain name of at most 63 characters")
        if len(self.node_id.encode()) > _LONGEST_NODE_ID:
            raise InvalidArgument(f"node-id: is longer than {_LONGEST_NODE_ID} bytes")
        for key, value in self.topology.items():
            prefix, slash, name = key.rpartition("/")
            if not _LABEL.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
                raise InvalidArgument(f"topology: {key!r} is not the key of a label")
            if not _LABEL.fullmatch(value):
                raise InvalidArgument(f"topology: {key}: {value!r} is not the value of a label")
        if self.max_volumes < 0:
            raise InvalidArgument(f"max-volumes: {self.max_volumes} is negative")
        if not 0 <= self.health_port < 1 << 16:
            raise InvalidArgument(f"health-port: {self.health_port} is not a port")
