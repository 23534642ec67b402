"""gRPC without its asyncio half, which `import grpc` would bring along: a megabyte that no server here uses."""

from __future__ import annotations

import sys
import types

sys.modules.setdefault("grpc.aio", types.ModuleType("grpc.aio"))
