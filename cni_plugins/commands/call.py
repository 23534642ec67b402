"""trivet-cni add, del, check, gc, status: a runtime's calls by hand, as cnitool has them."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from runtime_core.cni import conf
from runtime_core.cni import result as cni_result
from runtime_core.cni.cache import Attachment, Cache
from runtime_core.cni.caller import Caller
from runtime_core.cni.conf import NetworkList
from runtime_core.cni.invoke import Plugins
from runtime_core.cni.request import parse_args
from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, TrivetError
from runtime_core.registry import installed, locate

_CHECK_SINCE = "0.4.0"
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def configure(parser: argparse.ArgumentParser) -> None:
    env = os.environ
    parser.add_argument("network", metavar="NETWORK", help="its name in a configuration of --conf-dir")
    parser.add_argument("netns", metavar="NETNS", nargs="?", default="", help="path of a network namespace")
    parser.add_argument("--conf-dir", type=Path, default=Path(env.get("NETCONFPATH") or "/etc/cni/net.d"), help="NETCONFPATH")
    parser.add_argument("--path", default=env.get("CNI_PATH") or "/opt/cni/bin", help="where foreign plugins are: CNI_PATH")
    parser.add_argument("--interface", default=env.get("CNI_IFNAME") or "eth0", help="CNI_IFNAME (default %(default)s)")
    parser.add_argument("--args", default=env.get("CNI_ARGS") or "", help="KEY=VALUE;KEY=VALUE: CNI_ARGS")
    parser.add_argument("--capabilities", default=env.get("CAP_ARGS") or "{}", help="a JSON object: CAP_ARGS")
    parser.add_argument("--container-id", default="", help="default: made of NETNS as cnitool makes it")
    parser.add_argument("--packet-filter", default="nftables", help="driver of trivet.packetfilter (default %(default)s)")
    parser.add_argument("--cache-dir", type=Path, default=Path("/var/lib/trivet/cni-calls"), help="default %(default)s")
    parser.add_argument(
        "--libcni-cache", type=Path, default=Path("/var/lib/cni/results"),
        help="what cnitool and others have attached (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--valid", action="append", metavar="ID/INTERFACE", default=None,
        help="gc: an attachment that stands; all others of the network go. Without any, only those whose namespace is gone",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    network = conf.load_named(arguments.conf_dir, arguments.network)
    modules = {driver.name: driver.entry for driver in installed("cni")}
    plugins = Plugins(arguments.path.split(":"), modules, packet_filter=locate("packetfilter", arguments.packet_filter))
    cache = Cache(arguments.cache_dir, libcni=arguments.libcni_cache)
    caller = Caller(plugins, cache)
    if arguments.command == "status":
        caller.status(network)
    elif arguments.command == "gc":
        _collect_garbage(caller, cache, network, arguments.valid)
    else:
        _CALLS[arguments.command](caller, network, _attachment(arguments, network), cache)
    return 0


def _add(caller: Caller, network: NetworkList, wanted: Attachment, cache: Cache) -> None:
    if _cached(cache, wanted):  # a refused ADD is taken down, and that would be this one
        raise AlreadyExists(f"{wanted.netns}: {wanted.interface} is attached to {network.name} already")
    result = caller.add(network, wanted)
    print(json.dumps(cni_result.export(result, network.version), indent=2))


def _delete(caller: Caller, _network: NetworkList, wanted: Attachment, cache: Cache) -> None:
    caller.delete(_cached(cache, wanted) or wanted)


def _check(caller: Caller, network: NetworkList, wanted: Attachment, cache: Cache) -> None:
    found = _cached(cache, wanted)
    if found is None:
        raise NotFound(f"{wanted.netns}: {wanted.interface} is not attached to {network.name}")
    if network.version < _CHECK_SINCE:
        raise FailedPrecondition(f"cniVersion: {network.version} has no CHECK")
    caller.check(found)


_CALLS = {"add": _add, "del": _delete, "check": _check}


def _collect_garbage(caller: Caller, cache: Cache, network: NetworkList, named: list[str] | None) -> None:
    """Of this network. Plugins get a list of valid attachments only with --valid: the cache does not know the
    attachments of every runtime, and the others would be removed."""
    cached = [attachment for attachment in cache.all() if attachment.network == network.name]
    valid = None if named is None else [_parse_attachment_name(attachment) for attachment in named]
    errors: list[TrivetError] = []
    for attachment in cached:
        stands = os.path.exists(attachment.netns) if valid is None else (attachment.container_id, attachment.interface) in valid
        if not stands:
            try:
                caller.delete(attachment)
            except TrivetError as error:
                errors.append(error)
    errors += caller.call_gc(network, valid)
    if errors:
        raise TrivetError("; ".join(str(error) for error in errors))


def _parse_attachment_name(text: str) -> tuple[str, str]:
    container_id, slash, interface = text.partition("/")
    if not slash or not container_id or not interface:
        raise InvalidArgument(f"--valid: {text!r} is not ID/INTERFACE")
    return container_id, interface


def _attachment(arguments: argparse.Namespace, network: NetworkList) -> Attachment:
    if not arguments.netns:
        raise InvalidArgument(f"NETNS: {arguments.command} needs the path of a network namespace")
    netns = os.path.abspath(arguments.netns)
    container_id = arguments.container_id or f"cnitool-{hashlib.sha512(netns.encode()).hexdigest()[:20]}"
    if not _ID.fullmatch(container_id):
        raise InvalidArgument(f"--container-id: {container_id!r} is not an id")
    return Attachment(
        container_id=container_id,
        interface=arguments.interface,
        netns=netns,
        network=network.name,
        config={
            "name": network.name, "cniVersion": network.version, "plugins": list(network.plugins),
            "disableCheck": network.disable_check, "disableGC": network.disable_gc,
        },
        args=parse_args(arguments.args),
        capabilities=_capabilities(arguments.capabilities),
    )  # fmt: skip


def _capabilities(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"CAP_ARGS: {error}") from error
    if not isinstance(found, dict):
        raise InvalidArgument(f"CAP_ARGS: {text!r} is not an object")
    return found


def _cached(cache: Cache, wanted: Attachment) -> Attachment | None:
    for attachment in cache.of_container(wanted.container_id):
        if (attachment.network, attachment.interface) == (wanted.network, wanted.interface):
            return attachment
    return None
