"""What every handler receives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cri.operations import Operations
from cri.translate.container import Facts
from runtime_core.log import Log
from runtime_core.sandbox.node import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    node: Node
    facts: Facts
    log: Log
    #: runtime handler → what it can do, for Status
    handlers: dict[str, dict[str, Any]]
    cgroup_driver: str = "cgroupfs"
    default_cgroup_parent: str = "/trivet"
    operations: Operations = field(default_factory=Operations)
