"""PullImage: fetch an image and unpack it. A retry joins the pull that is under way."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.errors import InvalidArgument
from runtime_core.images.auth_challenge import Credentials, decode_basic
from runtime_core.images.reference import parse_reference
from runtime_core.serving.rpc_handler import Call

_DOCKER_HUB = ("index.docker.io", "registry-1.docker.io")


def pull_image(service: Service, request: api.PullImageRequest, call: Call) -> api.PullImageResponse:
    """Fetch and unpack the image; its id."""
    parsed = parse_reference(request.image.image)
    reference = str(parsed)
    credentials = credentials_for(parsed.domain, request.auth)
    namespace = request.sandbox_config.metadata.namespace
    image = service.operations.run_once(
        # Who asks with other credentials must be let in by the registry himself.
        f"PullImage {reference} {hash(credentials)}",
        lambda: service.node.images.pull(reference, credentials, namespace=namespace),
        call.time_remaining(),
    )
    return api.PullImageResponse(image_ref=image.id)


def credentials_for(domain: str, auth: api.AuthConfig) -> Credentials:
    """What of `auth` may be shown to the registry `domain`: nothing, when it names another server."""
    if auth.server_address and _host(auth.server_address) != _host(domain):
        return Credentials()
    for field, token in (("identity_token", auth.identity_token), ("registry_token", auth.registry_token)):
        if not token.isascii():  # RFC 6750, section 2.1
            raise InvalidArgument(f"auth.{field}: has characters that a token cannot have")
    username, password = auth.username, auth.password
    if auth.auth:
        username, password = decode_basic(auth.auth)
    return Credentials(
        username=username,
        password=password,
        identity_token=auth.identity_token,
        registry_token=auth.registry_token,
    )


def _host(address: str) -> str:
    """The host of an address with or without scheme and path, as Docker's configuration file has them."""
    host = address.partition("://")[2] or address
    host = host.partition("/")[0].lower()
    return "docker.io" if host in _DOCKER_HUB else host
