"""ImageStatus: one image, or an empty answer."""

from __future__ import annotations

import json

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from cri.translate import users
from runtime_core.errors import InvalidArgument
from runtime_core.images.store import Image
from runtime_core.serving.rpc_handler import Call


def image_status(service: Service, request: api.ImageStatusRequest, _call: Call) -> api.ImageStatusResponse:
    """The image, or an empty response when it is not here."""
    if not request.image.image:
        raise InvalidArgument("image.image is missing")
    image = service.node.images.find(request.image.image)
    if image is None:
        return api.ImageStatusResponse()
    info = {}
    if request.verbose:
        info["info"] = json.dumps({"chainIDs": image.chain_ids, "imageSpec": image.document})
    return api.ImageStatusResponse(image=image_message(image), info=info)


def image_message(image: Image) -> api.Image:
    uid, username = users.image_identity(str(image.config.get("User") or ""))
    return api.Image(
        id=image.id,
        repo_tags=image.tags,
        repo_digests=image.digests,
        size=image.size,
        uid=api.Int64Value(value=uid) if uid is not None else None,
        username=username,
        spec=api.ImageSpec(image=image.tags[0] if image.tags else image.id),
    )
