"""Whether a request is the one that was served before, so that a lost answer is given again and nothing else is. Pure.

A kubelet that did not hear an answer makes its request anew. All of it is as before but where a container's
termination message goes on the node: that file's name is random in every request.
"""

from __future__ import annotations

import hashlib

from google.protobuf.message import Message

from cri.api.v1 import api_pb2 as api

#: annotation of a kubelet: the path within the container
_TERMINATION_PATH = "io.kubernetes.container.terminationMessagePath"


def container_digest(config: api.ContainerConfig) -> str:
    """The same for requests that ask for the same container."""
    path = config.annotations.get(_TERMINATION_PATH, "")
    if not path:
        return digest(config)
    same = api.ContainerConfig()
    same.CopyFrom(config)
    for mount in same.mounts:
        if mount.container_path == path:
            mount.ClearField("host_path")
    return digest(same)


def digest(message: Message) -> str:
    """Of all that a message says, in whatever order its maps came."""
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()
