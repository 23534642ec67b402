"""CNI plugin dhcp: asks the DHCP daemon, which holds the leases. Cold."""

from __future__ import annotations

import ipaddress
import json
import os
import socket

from cni_plugins.ipam.dhcp import options
from cni_plugins.options import ipam_options
from cni_plugins.options.ipam_options import NotReady
from runtime_core.errors import FailedPrecondition, Unavailable, from_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request

_DEFAULT_SOCKET = "/run/cni/dhcp.sock"
#: the daemon gives up before; what calls us mostly still sooner
_ADD_SECONDS, _SECONDS = 600.0, 30.0
_MOST_ANSWER = 1024 * 1024


class NoDaemon(Unavailable):
    """No DHCP daemon listens; one may be started later."""


def add(request: Request) -> dict[str, Any]:
    ipam = _ipam(request)
    found = _ask(request, "ADD", _ADD_SECONDS)
    # A lease that was there already has the routes of its own ADD.
    routes = [{**route, "priority": ipam["priority"]} for route in found["routes"]] if ipam.get("priority") else found["routes"]
    return {"ips": found["ips"], "routes": routes, "dns": found["dns"]}


def delete(request: Request) -> None:
    """Without a daemon nothing is held: a daemon that comes later sees that the interface is gone."""
    try:
        _ask(request, "DEL", _SECONDS)
    except NoDaemon:
        return


def check(request: Request) -> None:
    """The lease holds, and is of the address in prevResult."""
    _ipam(request)
    held = ipaddress.ip_interface(_ask(request, "CHECK", _SECONDS)["ips"][0]["address"])
    listed = [ip["address"] for ip in (request.previous or {}).get("ips") or []]
    if request.previous is not None and held not in [ipaddress.ip_interface(text) for text in listed]:
        raise FailedPrecondition(f"prevResult.ips: the DHCP lease is of {held}, which is not among them")


def gc(request: Request) -> None:
    valid = request.valid_attachments()
    if valid is None:
        return
    try:
        _ask(request, "GC", _SECONDS, valid=sorted(list(entry) for entry in valid))
    except NoDaemon:
        return


def status(request: Request) -> None:
    """NotReady without a daemon."""
    _ipam(request)
    try:
        _ask(request, "STATUS", _SECONDS)
    except NoDaemon as error:
        raise NotReady(str(error)) from error


def command_line(arguments: list[str]) -> int:
    """`dhcp daemon …`; the exit status."""
    from cni_plugins.ipam.dhcp.command import command_line as run  # here: a plugin's call needs nothing of the daemon

    return run(arguments)


def _ipam(request: Request) -> dict[str, Any]:
    """Checked as the daemon will check it, so that STATUS says so before."""
    ipam = request.section("ipam")
    options.priority(ipam)
    options.message_options(ipam, request.args)
    return ipam


def _ask(request: Request, verb: str, seconds: float, **more: Any) -> dict[str, Any]:
    """The daemon's answer, or its error; NoDaemon where none listens."""
    path = ipam_options.string_option(request.section("ipam"), "daemonSocketPath") or _DEFAULT_SOCKET
    line = json.dumps({
        "verb": verb, "network": request.network, "container_id": request.container_id, "interface": request.interface,
        # The daemon's working directory is another.
        "netns": os.path.abspath(request.netns) if request.netns else "",
        "ipam": request.section("ipam"), "args": request.args, **more,
    })  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(seconds)
        try:
            sock.connect(path)
        except OSError as error:
            raise NoDaemon(
                f"ipam.daemonSocketPath: no DHCP daemon listens on {path} (trivet-cni dhcp-daemon is one): {error.strerror}"
            ) from error
        try:
            sock.sendall(line.encode() + b"\n")
            answer = _receive(sock)
        except OSError as error:
            raise Unavailable(f"DHCP daemon on {path}: {error}") from error
    return _result(answer, path)


def _receive(sock: socket.socket) -> bytes:
    received = bytearray()
    while chunk := sock.recv(65536):
        received += chunk
        if len(received) > _MOST_ANSWER:
            raise OSError("the answer is too long")
    return bytes(received)


def _result(answer: bytes, path: str) -> dict[str, Any]:
    try:
        document = json.loads(answer)
        if "error" in document:
            raise from_name(document["error"], document["message"])
        result: dict[str, Any] = document["result"]
    except (ValueError, KeyError, TypeError):
        raise Unavailable(f"DHCP daemon on {path} gave no answer") from None
    return result
