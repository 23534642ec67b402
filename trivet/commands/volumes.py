"""trivet volumes: volumes and snapshots of trivet-csi, with size, use, where they are published, and health."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from csi_driver.daemon import summary
from runtime_core.errors import DeadlineExceeded, FailedPrecondition, PermissionDenied, TrivetError, Unavailable
from runtime_core.serving.unix_server import socket_path

_SECONDS = 30
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024


def list_volumes(endpoint: str, as_json: bool) -> None:
    """Print a table, or a JSON object. Unavailable when trivet-csi does not run at `endpoint`, and how it is started."""
    found = _ask(endpoint)
    if as_json:
        print(json.dumps(found, indent=2, sort_keys=True))
        return
    print(f"{found['driver']} on {found['node']}, back end {found['backend']}\n")
    _table(("VOLUME", "NAME", "SIZE", "USED", "ACCESS", "PUBLISHED", "HEALTH"), [_volume(record) for record in found["volumes"]])
    print()
    _table(("SNAPSHOT", "NAME", "SIZE", "VOLUME", "GROUP"), [_snapshot(record) for record in found["snapshots"]])


def _ask(endpoint: str) -> dict[str, Any]:
    path = socket_path(endpoint, "--endpoint")
    _probe(path)
    with grpc.insecure_channel(f"unix://{path}") as channel:
        call = channel.unary_unary(
            f"/{summary.NAME}/List",
            request_serializer=Empty.SerializeToString,
            response_deserializer=Struct.FromString,
        )
        try:
            answer = call(Empty(), timeout=_SECONDS)
        except grpc.RpcError as error:
            raise _failure(path, error) from error
    found: dict[str, Any] = MessageToDict(answer)
    return found


def _probe(path: Path) -> None:
    """Whether anybody listens there: gRPC says it in many words, and after a while."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_SECONDS)
        try:
            probe.connect(str(path))
        except PermissionError:
            raise PermissionDenied(f"{path} is for who runs trivet-csi") from None
        except OSError as error:
            start = f"trivet-csi serve --endpoint unix://{path}"
            raise Unavailable(f"trivet-csi is not running at {path} ({error.strerror}); start it, as root: {start}") from None


def _failure(path: Path, error: Any) -> TrivetError:
    """What an answer that is none means, without gRPC's words where they say nothing."""
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return FailedPrecondition(f"who answers at {path} is not trivet-csi")
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"trivet-csi at {path} has not answered for {_SECONDS} s")
    return Unavailable(f"trivet-csi at {path}: {error.details()}")


def _volume(record: dict[str, Any]) -> tuple[str, ...]:
    access = " ".join(filter(None, (record["access"], record["fs_type"], "inline" if record["ephemeral"] else "")))
    health = "; ".join(record["problems"]) or ("healthy" if record["phase"] == "ready" else record["phase"])
    return record["id"], record["name"], _size(record["size"]), _size(record["used"]), access, _published(record), health


def _published(record: dict[str, Any]) -> str:
    if record["targets"]:
        return " ".join(record["targets"])
    return f"attached to {' '.join(record['nodes'])}" if record["nodes"] else "-"


def _snapshot(record: dict[str, Any]) -> tuple[str, ...]:
    return record["id"], record["name"], _size(record["size"]), record["volume"], record["group"] or "-"


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
