"""The functions of Identity, Controller, GroupController and SnapshotMetadata by RPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

IDENTITY: dict[str, Callable[..., Any]] = {}
CONTROLLER: dict[str, Callable[..., Any]] = {}
GROUP_CONTROLLER: dict[str, Callable[..., Any]] = {}
SNAPSHOT_METADATA: dict[str, Callable[..., Any]] = {}
