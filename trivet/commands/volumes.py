"""trivet volumes: volumes and snapshots of trivet-csi, with size, use, where they are published, and health."""

from __future__ import annotations

import json
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from csi_driver import overview
from runtime_core.errors import Unavailable
from runtime_core.serving.listen import socket_path

_SECONDS = 30
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024


def list_volumes(endpoint: str, as_json: bool) -> None:
    """Unavailable when nobody answers there."""
    found = _ask(endpoint)
    if as_json:
        print(json.dumps(found, indent=2, sort_keys=True))
        return
    print(f"{found['driver']} on {found['node']}, back end {found['backend']}\n")
    _table(("VOLUME", "NAME", "SIZE", "USED", "ACCESS", "PUBLISHED", "HEALTH"), [_volume(one) for one in found["volumes"]])
    print()
    _table(("SNAPSHOT", "NAME", "SIZE", "VOLUME", "GROUP"), [_snapshot(one) for one in found["snapshots"]])


def _ask(endpoint: str) -> dict[str, Any]:
    path = socket_path(endpoint, "--endpoint")
    with grpc.insecure_channel(f"unix://{path}") as channel:
        call = channel.unary_unary(
            f"/{overview.NAME}/List",
            request_serializer=Empty.SerializeToString,
            response_deserializer=Struct.FromString,
        )
        try:
            answer = call(Empty(), timeout=_SECONDS)
        except grpc.RpcError as error:
            raise Unavailable(f"{path}: {error.details()}") from error  # type: ignore[attr-defined]
    found: dict[str, Any] = MessageToDict(answer)
    return found


def _volume(one: dict[str, Any]) -> tuple[str, ...]:
    access = " ".join(filter(None, (one["access"], one["fs_type"], "inline" if one["ephemeral"] else "")))
    health = "; ".join(one["problems"]) or ("healthy" if one["phase"] == "ready" else one["phase"])
    return one["id"], one["name"], _size(one["size"]), _size(one["used"]), access, _published(one), health


def _published(one: dict[str, Any]) -> str:
    if one["targets"]:
        return " ".join(one["targets"])
    return f"attached to {' '.join(one['nodes'])}" if one["nodes"] else "-"


def _snapshot(one: dict[str, Any]) -> tuple[str, ...]:
    return one["id"], one["name"], _size(one["size"]), one["volume"], one["group"] or "-"


def _size(count: float | None) -> str:
    if count is None:
        return "-"
    for unit in _UNITS[:-1]:
        if count < _STEP:
            return f"{count:.4g} {unit}"
        count /= _STEP
    return f"{count:.4g} {_UNITS[-1]}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    rows = [tuple(_shown(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown(text: str) -> str:
    """A name may be any Unicode string, and a terminal obeys some of them."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
