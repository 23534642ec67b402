"""CNI plugin bandwidth: how fast a container may receive and send.

Options: ingressRate, ingressBurst, egressRate, egressBurst, unshapedSubnets, shapedSubnets, in the configuration itself
or in runtimeConfig.bandwidth.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack

from cni_plugins.chained import container
from cni_plugins.links.container_link import describe_interface
from cni_plugins.options.link_options import number
from runtime_core.cni import addresses
from runtime_core.cni.request import Request
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from runtime_core.kernel import netlink
from runtime_core.network import traffic
from runtime_core.network.kernel_errors import describe_error
from runtime_core.network.link_messages import alias_message, link_message
from runtime_core.network.links import Links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from runtime_core.network.links import Link

_KEYS = ("ingressRate", "ingressBurst", "egressRate", "egressBurst", "unshapedSubnets", "shapedSubnets")
_MOST_RATE = (1 << 64) - 1
_MOST_BURST = (1 << 32) * 8 - 9
_LONGEST_NAME, _LONGEST_ALIAS = 15, 255


class Options:
    """The configuration, checked; the configuration's own limits stand for all of runtimeConfig.bandwidth."""

    __slots__ = ("egress", "ingress", "networks", "only_listed")

    def __init__(self, request: Request) -> None:
        where, section = "", request.config
        if not any(key in section for key in _KEYS):
            where, section = "runtimeConfig.bandwidth.", _section(request)
        self.ingress = _limit(section, where, "ingress")
        self.egress = _limit(section, where, "egress")
        unshaped = _networks(section, where, "unshapedSubnets")
        shaped = _networks(section, where, "shapedSubnets")
        if unshaped and shaped:
            raise InvalidArgument(f"{where}shapedSubnets: cannot be set together with unshapedSubnets")
        self.networks, self.only_listed = unshaped or shaped, bool(shaped)

    def shape(self, limit: tuple[int, int], mtu: int, *, to_container: bool) -> traffic.Shape:
        """The subnets are of whoever the container speaks with: sources of what it receives."""
        rate, burst = limit
        return traffic.Shape(
            rate, burst, mtu, networks=self.networks, only_listed=self.only_listed, by_source=to_container
        )  # fmt: skip


def add(request: Request) -> dict[str, Any]:
    options = Options(request)
    previous = container.previous_result(request)
    if not options.ingress and not options.egress:
        return previous
    with netlink.Socket() as sock, ExitStack() as undo:
        links = Links(sock)
        port = _host_port(request, links, previous)
        if options.ingress:
            _check_free(port, traffic.root_qdisc(sock, port.index)[0])
            undo.callback(traffic.remove_qdisc, sock, port.index, traffic.ROOT)
            _send(links, port, options.shape(options.ingress, port.mtu, to_container=True).messages(port.index))
        if options.egress:
            _check_free(port, traffic.incoming_qdisc(sock, port.index))
            undo.callback(links.remove, device_name(request))
            device = _add_device(request, links, port)
            undo.callback(traffic.remove_qdisc, sock, port.index, traffic.INCOMING)
            _send(links, device, options.shape(options.egress, port.mtu, to_container=False).messages(device.index))
            _send(links, port, traffic.redirect(port.index, device.index))
            previous = {**previous, "interfaces": [*previous["interfaces"], describe_interface(device)]}
        undo.pop_all()
    return previous


def delete(request: Request) -> None:
    """What was made here goes by its name, and the host's veth is as before, in case that it stays."""
    with netlink.Socket() as sock:
        links = Links(sock)
        _unshape_port(request, links)
        links.remove(device_name(request))
        theirs = links.find(_reference_name(request))
        if theirs is not None and theirs.kind == "ifb" and not theirs.alias:
            links.remove_by_index(theirs.index)


def check(request: Request) -> None:
    options = Options(request)
    previous = container.previous_result(request)
    if not options.ingress and not options.egress:
        return
    with netlink.Socket() as sock:
        links = Links(sock)
        port = _host_port(request, links, previous)
        if options.ingress:
            _compare(sock, port, options.shape(options.ingress, port.mtu, to_container=True))
        if options.egress:
            device = _device(request, links)
            if device is None or not device.is_up:
                raise NotFound(f"ifb {device_name(request)} is missing or down")
            if traffic.redirects(sock, port.index)[:1] != [device.index]:
                raise FailedPrecondition(f"what comes in by {port.name} does not go to {device.name}")
            _compare(sock, device, options.shape(options.egress, port.mtu, to_container=False))


def gc(request: Request) -> None:
    """Devices of this network whose attachment is not in cni.dev/valid-attachments."""
    attachments = request.valid_attachments()
    if attachments is None:
        return
    valid = {_alias(request.network, container_id, interface) for container_id, interface in attachments}
    prefixes = tuple(f"{prefix} " for prefix in _alias_prefixes(request.network))
    with netlink.Socket() as sock:
        links = Links(sock)
        for link in links.all():
            if link.kind == "ifb" and link.alias.startswith(prefixes) and link.alias not in valid:
                links.remove_by_index(link.index)


def status(request: Request) -> None:
    """NotFound where the kernel lacks a kind of link, qdisc, filter or action."""
    options = Options(request)
    with container.scratch_namespace() as sock:
        links = Links(sock)
        device = _check_supported("links of kind ifb", links.create, "bwp", link_message("ifb", "bwp", [], up=True))
        for networks, lacking in (([], "tbf"), (options.networks, "htb, bfifo or u32")):
            shape = traffic.Shape(1 << 20, 1 << 20, device.mtu, networks=networks)
            _check_supported(f"traffic control by {lacking}", links.send, *shape.messages(device.index))
            traffic.remove_qdisc(sock, device.index, traffic.ROOT)
        _check_supported("ingress, u32 or mirred of traffic control", links.send, *traffic.redirect(device.index, device.index))


def device_name(request: Request) -> str:
    """The ifb of this attachment, the same for every call."""
    return "bwp" + _digest(request.owner)[: _LONGEST_NAME - 3]


def _section(request: Request) -> dict[str, Any]:
    value = request.section("runtimeConfig").get("bandwidth") or {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"runtimeConfig.bandwidth: {value!r} is not an object")
    return value


def _limit(section: dict[str, Any], where: str, direction: str) -> tuple[int, int] | None:
    """(rate, burst) in bytes; None without a limit."""
    rate_key, burst_key = f"{direction}Rate", f"{direction}Burst"
    rate = number(section, rate_key, where + rate_key, 0, _MOST_RATE) or 0
    burst = number(section, burst_key, where + burst_key, 0, _MOST_BURST) or 0
    if not rate and not burst:
        return None
    if not rate:
        raise InvalidArgument(f"{where}{rate_key}: must be set when {burst_key} is")
    if not burst:
        raise InvalidArgument(f"{where}{burst_key}: must be set when {rate_key} is")
    if rate < 8:
        raise InvalidArgument(f"{where}{rate_key}: {rate} bits are less than one byte a second")
    return rate // 8, burst // 8


def _networks(section: dict[str, Any], where: str, key: str) -> list[str]:
    values = section.get(key) or []
    if not isinstance(values, list):
        raise InvalidArgument(f"{where}{key}: {values!r} is not a list")
    for index, value in enumerate(values):
        if not isinstance(value, str) or "/" not in value:
            raise InvalidArgument(f"{where}{key}[{index}]: {value!r} is not a network in CIDR notation")
        addresses.interface(value, f"{where}{key}[{index}]")
    return values


def _host_port(request: Request, links: Links, previous: dict[str, Any]) -> Link:
    """The host's end of the container's veth, which prevResult must list."""
    with container.enter_container(request) as found:
        inside = container.find_interface(request, found)
    if inside.kind != "veth":
        raise FailedPrecondition(f"{request.interface} of the container is a {inside.kind or 'real device'}, not a veth")
    port = links.find_by_index(inside.parent)
    listed = {interface.get("name") for interface in previous["interfaces"] if not interface.get("sandbox")}
    if port is None or port.kind != "veth" or port.name not in listed:
        raise NotFound(f"prevResult.interfaces: none is the host's end of {request.interface}")
    return port


def _check_free(port: Link, kind: str) -> None:
    if kind:
        raise FailedPrecondition(f"prevResult.interfaces: {port.name} has the qdisc {kind} already")


def _unshape_port(request: Request, links: Links) -> None:
    try:
        port = _host_port(request, links, request.previous or {"interfaces": []})
    except (NotFound, FailedPrecondition, InvalidArgument):
        return
    sock, device = links.socket, _device(request, links)
    if traffic.root_qdisc(sock, port.index)[0] in ("tbf", "htb"):
        traffic.remove_qdisc(sock, port.index, traffic.ROOT)
    if device is not None and set(traffic.redirects(sock, port.index)) == {device.index}:  # the reference set's does it twice
        traffic.remove_qdisc(sock, port.index, traffic.INCOMING)


def _add_device(request: Request, links: Links, port: Link) -> Link:
    name = device_name(request)
    links.remove(name)  # what an ADD that was killed left behind
    alias = _alias(request.network, request.container_id, request.interface)
    try:
        return links.create(name, link_message("ifb", name, [], mtu=port.mtu, up=True), alias_message(alias, name=name))
    except OSError as error:
        raise describe_error(error, f"making ifb {name}") from error


def _device(request: Request, links: Links) -> Link | None:
    """Of this attachment, also when the reference set made it."""
    device = links.find(device_name(request))
    return device if device is not None else links.find(_reference_name(request))


def _send(links: Links, link: Link, messages: Iterable[Any]) -> None:
    try:
        links.send(*messages)
    except OSError as error:
        raise describe_error(error, f"shaping the traffic of {link.name}") from error


def _compare(sock: netlink.Socket, link: Link, shape: traffic.Shape) -> None:
    problem = shape.difference(sock, link.index)
    if problem:
        raise FailedPrecondition(f"{link.name} {problem}")


def _check_supported(what: str, call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except OSError as error:
        raise NotFound(f"the kernel has no {what}: {error.strerror}") from error


def _reference_name(request: Request) -> str:
    text = request.network + request.container_id
    return ("bwp" + hashlib.sha512(text.encode()).hexdigest())[:_LONGEST_NAME]


def _alias(network: str, container_id: str, interface: str) -> str:
    plain, digest = _alias_prefixes(network)
    text = f"{plain} {container_id} {interface}"
    return text if len(text.encode()) <= _LONGEST_ALIAS else f"{digest} {_digest(container_id)} {interface}"


def _alias_prefixes(network: str) -> tuple[str, str]:
    return f"bandwidth {network}", f"bandwidth {_digest(network)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
