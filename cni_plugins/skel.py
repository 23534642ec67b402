"""What every plugin executable does: environment and stdin in, result or error object on stdout. Cold.

CNI specification 1.1, sections 2 and 5.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys

from runtime_core.cni import result as cni_result
from runtime_core.cni.request import Request, parse_args
from runtime_core.errors import InvalidArgument, NotFound, TrivetError, from_oserror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FUNCTIONS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "gc", "STATUS": "status"}
_NEEDS_INTERFACE = ("ADD", "DEL", "CHECK")
_MOST_CONFIG = 4 * 1024 * 1024
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_BAD_ENVIRONMENT, _DECODING_FAILED, _INCOMPATIBLE, _NOT_AVAILABLE = 4, 6, 1, 50


def main(modules: dict[str, str], kind: str, packet_filter: str = "") -> int:
    """Serve one call of the plugin `kind`; the exit status.

    `modules` are all of ours, type → module; `packet_filter` is the entry point of the driver that they use.
    """
    version = cni_result.VERSIONS[-1]
    try:
        command = os.environ.get("CNI_COMMAND", "")
        if command == "VERSION":
            print(json.dumps({"cniVersion": version, "supportedVersions": list(cni_result.VERSIONS)}))
            return 0
        config = _config()
        version = config.get("cniVersion", "0.1.0")
        answer = _serve(modules, kind, command, config, packet_filter)
    except TrivetError as error:
        print(json.dumps(_error(error, version)))
        return 1
    except OSError as error:
        print(json.dumps(_error(from_oserror(error, kind), version)))
        return 1
    if answer is not None:
        print(json.dumps(answer))
    return 0


class CniError(TrivetError):
    """A code of the specification that no kind of ours stands for."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def _serve(modules: dict[str, str], kind: str, command: str, config: dict[str, Any], packet_filter: str) -> dict[str, Any] | None:
    if command not in _FUNCTIONS:
        raise CniError(_BAD_ENVIRONMENT, f"CNI_COMMAND: {command!r} is unknown")
    try:
        cni_result.check_version(config.get("cniVersion", "0.1.0"))
    except InvalidArgument as error:
        raise CniError(_INCOMPATIBLE, str(error)) from error
    request = _request(modules, command, config, packet_filter)
    try:
        found = getattr(importlib.import_module(modules[kind]), _FUNCTIONS[command])(request)
    except NotFound as error:
        if command != "STATUS":
            raise
        raise CniError(_NOT_AVAILABLE, str(error)) from error
    return cni_result.export(found, config.get("cniVersion", "0.1.0")) if command == "ADD" else None


def _request(modules: dict[str, str], command: str, config: dict[str, Any], packet_filter: str) -> Request:
    environment = {key: os.environ.get(f"CNI_{key}", "") for key in ("CONTAINERID", "NETNS", "IFNAME", "ARGS", "PATH")}
    if command in _NEEDS_INTERFACE:
        for key in ("CONTAINERID", "IFNAME", *(("NETNS",) if command != "DEL" else ())):
            if not environment[key]:
                raise CniError(_BAD_ENVIRONMENT, f"CNI_{key} is missing")
        if not _ID.fullmatch(environment["CONTAINERID"]):
            raise CniError(_BAD_ENVIRONMENT, f"CNI_CONTAINERID: {environment['CONTAINERID']!r} is not an id")
    previous = config.get("prevResult")
    return Request(
        config=config,
        container_id=environment["CONTAINERID"],
        netns=environment["NETNS"],
        interface=environment["IFNAME"],
        args=parse_args(environment["ARGS"]),
        path=environment["PATH"],
        previous=cni_result.read(previous) if previous is not None else None,
        delegate=lambda kind, verb, request: _delegate(modules, kind, verb, request),
        packet_filter=packet_filter,
    )


def _delegate(modules: dict[str, str], kind: str, verb: str, request: Request) -> dict[str, Any]:
    """An IPAM plugin of ours in this process, somebody else's by CNI_PATH."""
    from runtime_core.cni.invoke import Plugins  # here: subprocess is dear, and most calls need none

    plugins = Plugins(request.path.split(":"), modules, packet_filter=request.packet_filter)
    return plugins.call(kind, verb, request)


def _config() -> dict[str, Any]:
    text = sys.stdin.buffer.read(_MOST_CONFIG + 1)
    try:
        config = json.loads(text)
    except ValueError as error:
        raise CniError(_DECODING_FAILED, f"the network configuration is not JSON: {error}") from error
    if len(text) > _MOST_CONFIG or not isinstance(config, dict):
        raise CniError(_DECODING_FAILED, "the network configuration is not a JSON object of reasonable size")
    if not isinstance(config.get("name"), str) or not _ID.fullmatch(config["name"]):
        raise InvalidArgument(f"name: {config.get('name')!r} is not a network name")
    return config


def _error(error: TrivetError, version: str) -> dict[str, Any]:
    code = getattr(error, "code", None) or error.cni_code
    return {"cniVersion": version, "code": code, "msg": str(error), "details": ""}
