"""What every handler receives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cri.api.v1 import api_pb2 as api
from cri.events import Events
from cri.listing import Items
from cri.operations import Operations
from cri.translate import status
from cri.translate.container import Facts
from runtime_core.log import Log
from runtime_core.sandbox.node import Node
from runtime_core.sandbox.records import ContainerRecord, SandboxRecord
from runtime_core.streaming.client import Streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Everything that a handler needs; made once by the daemon."""

    node: Node
    facts: Facts
    log: Log
    #: runtime handler → what it can do, for Status
    handlers: dict[str, dict[str, Any]]
    streams: Streams
    events: Events
    cgroup_driver: str = "cgroupfs"
    default_cgroup_parent: str = "/trivet"
    operations: Operations = field(default_factory=Operations)
    container_items: Items[ContainerRecord, api.Container] = field(default_factory=lambda: Items(status.container_item))
    sandbox_items: Items[SandboxRecord, api.PodSandbox] = field(default_factory=lambda: Items(status.sandbox_item))
