"""PullImage: fetch an image and unpack it. A retry joins the pull that is under way."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.images.auth_challenge import Credentials, decode_basic
from runtime_core.images.reference import parse_reference
from runtime_core.serving.gate import Call


def pull_image(service: Service, request: api.PullImageRequest, call: Call) -> api.PullImageResponse:
    reference = str(parse_reference(request.image.image))
    credentials = _credentials(request.auth)
    namespace = request.sandbox_config.metadata.namespace
    image = service.operations.once(
        # Who asks with other credentials must be let in by the registry himself.
        f"PullImage {reference} {hash(credentials)}",
        lambda: service.node.images.pull(reference, credentials, namespace=namespace),
        call.time_remaining(),
    )
    return api.PullImageResponse(image_ref=image.id)


def _credentials(auth: api.AuthConfig) -> Credentials:
    username, password = auth.username, auth.password
    if auth.auth:
        username, password = decode_basic(auth.auth)
    return Credentials(
        username=username,
        password=password,
        identity_token=auth.identity_token,
        registry_token=auth.registry_token,
    )
