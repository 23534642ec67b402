"""The functions of the Node service by RPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NODE: dict[str, Callable[..., Any]] = {}
