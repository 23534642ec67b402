"""ListImages and its streaming variant."""

from __future__ import annotations

from collections.abc import Iterator

from cri.api.v1 import api_pb2 as api
from cri.image.status import image_message
from cri.listing import pages
from cri.service import Service
from runtime_core.serving.rpc_handler import Call

_PAGE = 200


def list_images(service: Service, request: api.ListImagesRequest, _call: Call) -> api.ListImagesResponse:
    """All images, or the one that the filter names."""
    return api.ListImagesResponse(images=_query(service, request.filter))


def stream_images(service: Service, request: api.StreamImagesRequest, _call: Call) -> Iterator[api.StreamImagesResponse]:
    """The same in pages."""
    found = _query(service, request.filter)
    for page in pages(found, _PAGE):
        yield api.StreamImagesResponse(images=page)


def _query(service: Service, wanted: api.ImageFilter) -> list[api.Image]:
    if wanted.image.image:
        image = service.node.images.find(wanted.image.image)
        return [image_message(image)] if image else []
    return [image_message(image) for image in service.node.images.all()]
