"""What every plugin executable does: environment and configuration in, result or error object out. Cold.

CNI specification 1.1, sections 2 and 5.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys

from runtime_core.cni import document
from runtime_core.cni import result as cni_result
from runtime_core.cni.request import Request, parse_args, previous_result
from runtime_core.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    TrivetError,
    Unavailable,
    from_oserror,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FUNCTIONS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "gc", "STATUS": "status"}
_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
_NEEDS_INTERFACE = ("ADD", "DEL", "CHECK")
_MOST_CONFIG = 4 * 1024 * 1024
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
#: what the node lacks, told by STATUS
_NOT_READY = (NotFound, FailedPrecondition, PermissionDenied, DataLoss, ResourceExhausted, Unavailable)
_BAD_ENVIRONMENT, _DECODING_FAILED, _INCOMPATIBLE, _NOT_AVAILABLE, _UNKNOWN = 4, 6, 1, 50, 999


def serve_call(kind: str, modules: dict[str, str], packet_filter: str, text: bytes, arguments: list[str]) -> tuple[int, bytes]:
    """Serve the call of the plugin `kind` that the environment describes: (exit status, what goes to standard output).

    `modules` are all of ours, type → module; `packet_filter` is the entry point of the driver that they use; `text` is
    the configuration. With `arguments` it is no CNI call, but the plugin's own command line.
    """
    command = os.environ.get("CNI_COMMAND", "")
    if arguments:
        return _command_line(kind, modules, arguments), b""
    if command == "VERSION":
        return 0, _encode_line({"cniVersion": cni_result.VERSIONS[-1], "supportedVersions": list(cni_result.VERSIONS)})
    try:
        found = _serve(modules, kind, command, text, packet_filter)
    except TrivetError as error:
        code = getattr(error, "code", None) or error.cni_code
        return 1, error_object(code, str(error), version_of(text), getattr(error, "details", ""))
    except OSError as error:
        failure = from_oserror(error, f"{kind} {command}")
        return 1, error_object(failure.cni_code, str(failure), version_of(text))
    except Exception as error:  # noqa: BLE001 - the edge of a process: a runtime reads no traceback
        import traceback  # here: what it needs takes longer than a call

        traceback.print_exc()
        return 1, error_object(_UNKNOWN, f"{kind} {command}: {type(error).__name__}: {error}", version_of(text))
    return 0, b"" if found is None else _encode_line(found)


def error_object(code: int, message: str, version: str, details: str = "") -> bytes:
    """What a failed plugin prints (specification section 5)."""
    return _encode_line({"cniVersion": version, "code": code, "msg": message, "details": details})


def version_of(text: bytes) -> str:
    """The version of a configuration, as far as it can be read."""
    try:
        version = json.loads(text).get("cniVersion", "0.1.0")
    except (ValueError, AttributeError, RecursionError):
        version = ""
    return version if version in cni_result.VERSIONS else cni_result.VERSIONS[-1]


class CniError(TrivetError):
    """A code of the specification that no kind of ours stands for."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def _command_line(kind: str, modules: dict[str, str], arguments: list[str]) -> int:
    command = getattr(importlib.import_module(modules[kind]), "command_line", None)
    if command is None:
        print(f"{kind}: takes no arguments: its parameters are in the environment (CNI specification)", file=sys.stderr)
        return 2
    status = int(command(arguments) or 0)
    sys.stdout.flush()  # the process ends without the interpreter's clean-up
    return status


def _serve(modules: dict[str, str], kind: str, command: str, text: bytes, packet_filter: str) -> dict[str, Any] | None:
    if command not in _FUNCTIONS:
        raise CniError(_BAD_ENVIRONMENT, f"CNI_COMMAND: {command!r} is none of {', '.join(_FUNCTIONS)} and VERSION")
    config = _parse_config(text, command)
    _check_version(config.get("cniVersion", "0.1.0"), command)
    request = _request(modules, command, config, packet_filter)
    try:
        found = getattr(importlib.import_module(modules[kind]), _FUNCTIONS[command])(request)
    except _NOT_READY as error:
        if command != "STATUS":
            raise
        raise CniError(_NOT_AVAILABLE, str(error)) from error
    return cni_result.export(found, config.get("cniVersion", "0.1.0")) if command == "ADD" else None


def _check_version(version: Any, command: str) -> None:
    try:
        cni_result.check_version(version)
    except InvalidArgument as error:
        raise CniError(_INCOMPATIBLE, str(error)) from error
    if version < _SINCE.get(command, ""):
        raise CniError(_INCOMPATIBLE, f"cniVersion: {version} has no {command}, which came with {_SINCE[command]}")


def _request(modules: dict[str, str], command: str, config: dict[str, Any], packet_filter: str) -> Request:
    environment = {key: os.environ.get(f"CNI_{key}", "") for key in ("CONTAINERID", "NETNS", "IFNAME", "ARGS", "PATH")}
    for key, value in environment.items():
        if not _is_text(value):
            raise CniError(_BAD_ENVIRONMENT, f"CNI_{key}: {value!r} is not UTF-8")
    if command in _NEEDS_INTERFACE:
        for key in ("CONTAINERID", "IFNAME", *(("NETNS",) if command != "DEL" else ())):
            if not environment[key]:
                raise CniError(_BAD_ENVIRONMENT, f"CNI_{key} is missing")
        if not _ID.fullmatch(environment["CONTAINERID"]):
            raise CniError(_BAD_ENVIRONMENT, f"CNI_CONTAINERID: {environment['CONTAINERID']!r} is not an id")
    try:
        args = parse_args(environment["ARGS"])
    except InvalidArgument:
        if command != "DEL":
            raise
        args = {}  # what was made goes, however the call that ends it is written
    return Request(
        config=config,
        container_id=environment["CONTAINERID"],
        netns=environment["NETNS"],
        interface=environment["IFNAME"],
        args=args,
        path=environment["PATH"],
        previous=previous_result(config, command),
        delegate=lambda kind, verb, request: _delegate(modules, kind, verb, request),
        packet_filter=packet_filter,
    )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _delegate(modules: dict[str, str], kind: str, verb: str, request: Request) -> dict[str, Any]:
    """An IPAM plugin of ours in this process, somebody else's by CNI_PATH."""
    from runtime_core.cni.invoke import Plugins  # here: subprocess is dear, and most calls need none

    plugins = Plugins(request.path.split(":"), modules, packet_filter=request.packet_filter)
    return plugins.delegate(kind, verb, request)


def _parse_config(text: bytes, command: str) -> dict[str, Any]:
    try:
        config = document.read(text)
    except ValueError as error:
        raise CniError(_DECODING_FAILED, f"the network configuration is not JSON: {error}") from error
    if len(text) > _MOST_CONFIG or not isinstance(config, dict):
        raise CniError(_DECODING_FAILED, "the network configuration is not a JSON object of reasonable size")
    if not isinstance(config.get("name"), str) or not _ID.fullmatch(config["name"]):
        raise InvalidArgument(f"name: {config.get('name')!r} is not a network name")
    if command == "DEL":
        return document.cleaned(config)  # type: ignore[no-any-return]
    document.check(config)
    return config


def _encode_line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"
