"""ImageFsInfo: how much the content store and the layers, and the writable layers, use."""

from __future__ import annotations

import time
from pathlib import Path

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.interfaces.snapshotter import Usage
from runtime_core.serving.rpc_handler import Call


def image_fs_info(service: Service, _request: api.ImageFsInfoRequest, _call: Call) -> api.ImageFsInfoResponse:
    """Bytes and inodes of the content store with the layers, and of the containers' writable layers."""
    node = service.node
    root = node.directories.root
    containers = [node.snapshotter.usage(key) for key in node.snapshotter.snapshots()]
    writable = Usage(sum(u.size_bytes for u in containers), sum(u.inodes for u in containers))
    return api.ImageFsInfoResponse(
        image_filesystems=[_usage(root, node.images.usage())],
        container_filesystems=[_usage(root, writable)],
    )


def _usage(mountpoint: Path, used: Usage) -> api.FilesystemUsage:
    return api.FilesystemUsage(
        timestamp=time.time_ns(),
        fs_id=api.FilesystemIdentifier(mountpoint=str(mountpoint)),
        used_bytes=api.UInt64Value(value=used.size_bytes),
        inodes_used=api.UInt64Value(value=used.inodes),
    )
