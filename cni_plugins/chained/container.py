"""What chained plugins share: the earlier plugins' result, and entering the container. Cold."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager

from cni_plugins.options.link_options import interface_name, is_interface_name
from runtime_core.errors import InvalidArgument, NotFound
from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.network.namespace import in_namespace, is_own, open_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link


class Container:
    """The container's network namespace, in which the calling thread is."""

    __slots__ = ("link", "links", "namespace")

    def __init__(self, links: Links, link: Link | None, namespace: int) -> None:
        self.links, self.link, self.namespace = links, link, namespace


def previous_result(request: Request) -> dict[str, Any]:
    """prevResult; InvalidArgument when it is missing, since a chained plugin cannot be the first."""
    if request.previous is None:
        raise InvalidArgument(f"prevResult is missing: {request.config.get('type')} comes after other plugins of a list")
    return request.previous


@contextmanager
def enter_container(request: Request) -> Iterator[Container]:
    """Within the block this thread is in the container."""
    interface_name(request.interface, "CNI_IFNAME")
    with ExitStack() as closing:
        namespace = open_namespace(request.netns)
        closing.callback(os.close, namespace)
        if is_own(namespace):
            raise InvalidArgument(f"CNI_NETNS: {request.netns!r} is the network namespace of the node itself")
        closing.enter_context(in_namespace(namespace))
        links = Links(closing.enter_context(netlink.Socket()))
        yield Container(links, links.find(request.interface), namespace)


@contextmanager
def enter_container_if_present(request: Request) -> Iterator[Container | None]:
    """As `enter_container`, None where there is none any more: DEL succeeds then, and makes nothing."""
    if not request.netns or not is_interface_name(request.interface):
        yield None
        return
    with ExitStack() as closing:
        try:
            found: Container | None = closing.enter_context(enter_container(request))
        except (NotFound, InvalidArgument):
            found = None
        yield found


def find_interface(request: Request, found: Container) -> Link:
    """The container's interface CNI_IFNAME; NotFound without it."""
    if found.link is None:
        raise NotFound(f"CNI_IFNAME: the container has no interface {request.interface}")
    return found.link


def interface_addresses(request: Request, previous: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries of prevResult.ips that are the interface's: those which name none are."""
    interfaces, found = previous["interfaces"], []
    for ip in previous["ips"]:
        index = ip.get("interface")
        known = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(interfaces)
        if not known or interfaces[index].get("name") == request.interface:
            found.append(ip)
    return found


@contextmanager
def scratch_namespace() -> Iterator[netlink.Socket]:
    """A namespace of this thread's own for as long as the block runs: what is tried out there touches nothing."""
    from runtime_core.kernel import syscalls  # here: STATUS alone needs it

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            with netlink.Socket() as sock:
                yield sock
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)
