"""RemoveImage: forget an image with all its tags; its layers are deleted when no container uses them."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.errors import InvalidArgument
from runtime_core.serving.rpc_handler import Call


def remove_image(service: Service, request: api.RemoveImageRequest, _call: Call) -> api.RemoveImageResponse:
    """Forget the image under all its names. Idempotent."""
    if not request.image.image:
        raise InvalidArgument("image.image is missing")
    service.node.images.remove(request.image.image)
    service.node.images.collect_garbage(service.node.snapshotter.layers_in_use())
    return api.RemoveImageResponse()
