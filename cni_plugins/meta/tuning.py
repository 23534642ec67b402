"""CNI plugin tuning: sysctls of the container's network, and settings of its interface.

Options: sysctl, mac, mtu, promisc, allmulti, txQLen, dataDir; all but the last in args.cni too, mac also in
runtimeConfig and CNI_ARGS.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack

from cni_plugins.chained import container, link_settings, saved_settings
from cni_plugins.chained.tuning_options import ALLOW_LIST, DATA_DIRECTORY, Options, check_allowed, data_directory, sysctl_path
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, from_oserror
from runtime_core.network.kernel_errors import LEAST_IPV6_MTU, describe_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Links

_SYSCTLS = "/proc/sys/"
_OF_INTERFACES = ("conf", "neigh")


def add(request: Request) -> dict[str, Any]:
    options = Options(request)
    previous = container.previous_result(request)
    check_allowed(options.sysctls, ALLOW_LIST)
    with container.enter_container(request) as found, ExitStack() as undo:
        link = container.find_interface(request, found)
        settings = link_settings.requested_settings(options)
        _check_mtu(settings.get("mtu", LEAST_IPV6_MTU), container.interface_addresses(request, previous))
        if settings:
            _save(request, found.links, link, settings, undo)
            for key, value in settings.items():
                _set(found.links, link.index, key, value)
        for key, value in options.sysctls.items():
            _write(key, request.interface, value)
        undo.pop_all()
    return _updated_result(request, previous, settings)


def delete(request: Request) -> None:
    """What was saved is given back where the interface is still there, and forgotten; sysctls stay, as in the
    reference set: another attachment of the container may have set them too."""
    if not saved_settings.is_nameable(request):
        return
    directory = _directory(request)
    settings = saved_settings.load(directory, request)
    if settings:
        with container.enter_container_if_present(request) as found:
            if found is not None and found.link is not None:
                _restore(found.links, found.link.index, settings)
    saved_settings.remove(directory, request)


def check(request: Request) -> None:
    options = Options(request)
    container.previous_result(request)
    with container.enter_container(request) as found:
        link = container.find_interface(request, found)
        present = link_settings.read_settings(found.links, link)
        for key, value in options.sysctls.items():
            _check_sysctl(key, request.interface, value)
    for key, value in link_settings.requested_settings(options).items():
        if present[key] != value:
            raise FailedPrecondition(f"{key} of {request.interface} is {present[key]}, not {value}")


def gc(request: Request) -> None:
    """Files of this network whose attachment is not in cni.dev/valid-attachments."""
    attachments = request.valid_attachments()
    if attachments is not None:
        saved_settings.remove_stale(_directory(request), request.network, attachments)


def status(request: Request) -> None:
    """NotFound for a sysctl that the kernel lacks; those of interfaces cannot be looked up without one."""
    options = Options(request)
    check_allowed(options.sysctls, ALLOW_LIST)
    for key in options.sysctls:
        path = sysctl_path(key, "IFNAME")
        if not any(part in _OF_INTERFACES for part in path.split("/")):
            _read(key, path)


def _check_mtu(mtu: int, ips: list[dict[str, Any]]) -> None:
    """The kernel would take the addresses away, and say nothing."""
    lost = [ip["address"] for ip in ips if ":" in ip["address"]]
    if lost and mtu < LEAST_IPV6_MTU:
        raise InvalidArgument(f"mtu: setting it to {mtu}: {lost[0]} needs {LEAST_IPV6_MTU} at the least, as all of IPv6")


def _save(request: Request, links: Links, link: Any, settings: dict[str, Any], undo: ExitStack) -> None:
    before = link_settings.read_settings(links, link)
    directory = data_directory(request)
    originals = {key: before[key] for key in settings}
    undo.callback(saved_settings.remove, directory, request)
    saved_settings.save(directory, request, originals)
    undo.callback(_restore, links, link.index, originals)


def _set(links: Links, index: int, key: str, value: Any) -> None:
    try:
        links.send(link_settings.setting_message(index, key, value))
    except OSError as error:
        raise describe_error(error, f"{key}: setting it to {value}") from error


def _restore(links: Links, index: int, settings: dict[str, Any]) -> None:
    failures = []
    for key, value in settings.items():
        try:
            links.send(link_settings.setting_message(index, key, value))
        except (OSError, ValueError) as error:
            failures.append(f"{key} to {value}: {error}")
    if failures:
        raise FailedPrecondition(f"giving the interface its settings back failed: {'; '.join(failures)}")


def _write(key: str, interface: str, value: str) -> None:
    path = _SYSCTLS + sysctl_path(key, interface)
    try:
        with open(path, "r+b", buffering=0) as file:  # never made: procfs has it, or it is an error
            file.write(value.encode() or b"\n")  # nothing written would be nothing changed, not a list emptied
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ERANGE):
            raise InvalidArgument(f"sysctl.{key}: setting it to {value!r}: {error}") from error
        raise from_oserror(error, f"sysctl.{key}: setting it to {value!r}") from error


def _check_sysctl(key: str, interface: str, value: str) -> None:
    """Numbers of a list may be set with blanks and read with tabs between them."""
    present = _read(key, sysctl_path(key, interface))
    if present is not None and present.split() != value.split():
        raise FailedPrecondition(f"sysctl.{key} is {present.strip()!r}, not {value!r}")


def _read(key: str, path: str) -> str | None:
    """None of one that can only be written."""
    try:
        with open(_SYSCTLS + path, "rb", buffering=0) as file:
            return file.read().decode(errors="replace")
    except PermissionError:
        return None
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise NotFound(f"sysctl.{key}: the kernel has no {_SYSCTLS}{path}") from error
        raise from_oserror(error, f"sysctl.{key}") from error


def _updated_result(request: Request, previous: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The result says what the interface has now."""
    new = {key: settings[key] for key in ("mac", "mtu") if key in settings}
    interfaces = [
        {**interface, **new} if interface.get("name") == request.interface and interface.get("sandbox") else interface
        for interface in previous["interfaces"]
    ]
    return {**previous, "interfaces": interfaces}


def _directory(request: Request) -> str:
    """For DEL and GC, which a configuration that is bad by now does not stop."""
    try:
        return data_directory(request)
    except InvalidArgument:
        return DATA_DIRECTORY
