"""ImageFsInfo: how much the content store and the layers, and the writable layers, use."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.serving.gate import Call


def image_fs_info(service: Service, _request: api.ImageFsInfoRequest, _call: Call) -> api.ImageFsInfoResponse:
    node = service.node
    root = node.directories.root
    containers = [node.snapshotter.usage(key) for key in node.snapshotter.snapshots()]
    return api.ImageFsInfoResponse(
        image_filesystems=[_usage(root, sum(image.size for image in node.images.all()), _inodes(root))],
        container_filesystems=[_usage(root, sum(u.size_bytes for u in containers), sum(u.inodes for u in containers))],
    )


def _usage(mountpoint: Path, size: int, inodes: int) -> api.FilesystemUsage:
    return api.FilesystemUsage(
        timestamp=time.time_ns(),
        fs_id=api.FilesystemIdentifier(mountpoint=str(mountpoint)),
        used_bytes=api.UInt64Value(value=size),
        inodes_used=api.UInt64Value(value=inodes),
    )


def _inodes(root: Path) -> int:
    status = os.statvfs(root)
    return status.f_files - status.f_ffree
