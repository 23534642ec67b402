"""The device nodes of a container, and what its cgroup must allow for them (OCI runtime spec, "Default Devices")."""

from __future__ import annotations

import os
import stat

from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.kernel import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEFAULT = (
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
)  # fmt: skip
_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"),
)  # fmt: skip
#: console, ptmx, and every pseudo-terminal
_TERMINALS = ((5, 1), (5, 2), (136, None))
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def with_default_rules(resources: dict[str, Any]) -> dict[str, Any]:
    """`linux.resources` whose device rules, if there are any, allow what every container has.

    Nodes of any kind may be made (where CAP_MKNOD is given); without a rule they cannot be opened.
    """
    rules = resources.get("devices")
    if not rules or all(rule.get("allow") and not rule.get("type", "a").strip("a") for rule in rules):
        return resources
    allowed: list[dict[str, Any]] = [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    for major, minor in (*((major, minor) for _name, major, minor in _DEFAULT), *_TERMINALS):
        allowed.append({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"})
    return {**resources, "devices": [*rules, *(rule for rule in allowed if rule not in rules)]}


def populate(directory: int, configured: list[dict[str, Any]]) -> None:
    """Put the default and the `configured` devices and links into /dev, open as `directory`.

    One that is configured stands for the default of its name; those elsewhere are left to `populate_elsewhere`.
    """
    below = {path.removeprefix("dev/"): device for path, device in _by_path(configured) if path.startswith("dev/")}
    for name, major, minor in _DEFAULT:
        if name not in below:
            _make(directory, name, stat.S_IFCHR | 0o666, os.makedev(major, minor), (0, 0))
    for path, device in below.items():
        _make_below(directory, path, device)
    for name, target in _LINKS:
        try:
            os.symlink(target, name, dir_fd=directory)
        except FileExistsError:
            continue


def populate_elsewhere(root: int, configured: list[dict[str, Any]]) -> None:
    """The `configured` devices that are not in /dev, below the container's root, where its links lead."""
    for path, device in _by_path(configured):
        if not path.startswith("dev/"):
            _make_elsewhere(root, path, device)


def _by_path(configured: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Each with its path, relative to the root and without empty parts."""
    found = []
    for device in configured:
        parts = [part for part in device["path"].split("/") if part not in ("", ".")]
        if not parts or ".." in parts or device["path"].endswith("/"):
            raise InvalidArgument(f"linux.devices: {device['path']!r} is not the path of a device")
        found.append(("/".join(parts), device))
    return found


def _make_below(directory: int, path: str, device: dict[str, Any]) -> None:
    head, _, name = path.rpartition("/")
    try:
        parent = paths.make_directories(directory, head)
    except OSError as error:
        raise paths.wrong_path(error, f"linux.devices: {device['path']!r}") from error
    try:
        _make(parent, name, *_parse(device))
    finally:
        os.close(parent)


def _make_elsewhere(root: int, path: str, device: dict[str, Any]) -> None:
    mode, number, owner = _parse(device)
    try:
        made = paths.open_or_make(root, path, lambda name, parent: _make_node(parent, name, mode, number, owner))
    except OSError as error:
        raise paths.wrong_path(error, f"linux.devices: {device['path']!r}") from error
    try:
        _check(os.fstat(made), device["path"], mode, number)
    finally:
        os.close(made)


def _parse(device: dict[str, Any]) -> tuple[int, int, tuple[int, int]]:
    kind = _KINDS.get(device.get("type", ""))
    if kind is None:
        raise InvalidArgument(f"linux.devices: {device['path']!r} has unknown type {device.get('type')!r}")
    number = os.makedev(device.get("major") or 0, device.get("minor") or 0)
    mode = device.get("fileMode")
    permissions = 0o666 if mode is None else mode & 0o7777
    return kind | permissions, number, (device.get("uid") or 0, device.get("gid") or 0)


def _make(directory: int, name: str, mode: int, number: int, owner: tuple[int, int]) -> None:
    """Make one node. What is there already must be that device: nothing is followed (CVE-2026-41579)."""
    try:
        _make_node(directory, name, mode, number, owner)
    except FileExistsError:
        _check(os.stat(name, dir_fd=directory, follow_symlinks=False), name, mode, number)
    except OSError as error:
        raise paths.wrong_path(error, f"linux.devices: making {name!r}") from error


def _make_node(directory: int, name: str, mode: int, number: int, owner: tuple[int, int]) -> None:
    os.mknod(name, mode, number, dir_fd=directory)
    if owner != (0, 0):
        os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)


def _check(there: os.stat_result, name: str, mode: int, number: int) -> None:
    if stat.S_IFMT(there.st_mode) != stat.S_IFMT(mode) or there.st_rdev != number:
        raise FailedPrecondition(f"device {name} of the image is not the device that belongs there")
