"""Which attachment a link belongs to: names and IFLA_IFALIAS values made from network, container and interface. Cold."""

from __future__ import annotations

import hashlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Links

_PREFIX = "cni"
_LONGEST_ALIAS = 255


def host_interface_name(request: Request) -> str:
    """The host's end of a pair, the same for every call on this attachment, so that DEL needs nothing else."""
    return "veth" + _digest(request.owner)[:11]


def port_name(request: Request, previous: dict[str, Any], others: Collection[str] = ()) -> str:
    """The host's end as prevResult has it, where another plugin of the type may have made it; `others` are the node's own
    interfaces that stand beside it there."""
    listed = [str(one.get("name")) for one in previous["interfaces"] if not one.get("sandbox")]
    setup = [name for name in listed if name not in others]
    own = host_interface_name(request)
    return own if own in setup or not setup else setup[0]


def link_alias(request: Request) -> str:
    """The IFLA_IFALIAS of the attachment's links."""
    return _format_alias(request.network, request.container_id, request.interface)


def belongs_to_another(text: str, request: Request) -> bool:
    """Whether the alias `text` says that a link belongs to another attachment."""
    return text.startswith(f"{_PREFIX} ") and text != link_alias(request)


def remove_stale_links(links: Links, request: Request) -> None:
    """Links of this network whose attachment is not in cni.dev/valid-attachments; without that list, none."""
    attachments = request.valid_attachments()
    if attachments is None:
        return
    valid = {_format_alias(request.network, container_id, interface) for container_id, interface in attachments}
    prefixes = tuple(f"{_PREFIX} {name} " for name in (request.network, _digest(request.network)))
    for link in links.all():
        if link.alias.startswith(prefixes) and link.alias not in valid:
            links.remove_by_index(link.index)


def _format_alias(network: str, container_id: str, interface: str) -> str:
    text = f"{_PREFIX} {network} {container_id} {interface}"
    if len(text.encode()) > _LONGEST_ALIAS:
        text = f"{_PREFIX} {_digest(network)} {_digest(container_id)} {interface}"
    return text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
