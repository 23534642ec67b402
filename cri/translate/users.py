"""Which user the container runs as: from the request, the image, and the image's passwd and group files. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cri.api.v1 import api_pb2 as api
from runtime_core.errors import InvalidArgument
from runtime_core.kernel.decimal_number import parse_decimal

_HIGHEST_ID = 2**31 - 1
_MOST_GROUPS = 65536  # NGROUPS_MAX of setgroups(2)
_SHOWN = 64  # of a value that may be as long as a file


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def image_identity(user: str) -> tuple[int | None, str]:
    """(uid, user name) as CRI's Image wants them: one of the two, of the part before the colon.

    A number that cannot be a uid is told as a name: it is no reason to tell nothing of the image, or of others.
    """
    name = user.partition(":")[0]
    uid = parse_decimal(name, _HIGHEST_ID)
    # What an earlier version has pulled may have half of a surrogate pair, which no message can.
    return (uid, "") if uid is not None else (None, name.encode(errors="replace").decode())


def resolve_user(security: api.LinuxContainerSecurityContext, image_user: str, passwd: bytes, group: bytes) -> User:
    """Raises InvalidArgument for an unknown user or an id that cannot be (CVE-2024-40635)."""
    wanted_group = ""
    if security.HasField("run_as_user"):
        wanted, field = str(security.run_as_user.value), "config.linux.security_context.run_as_user"
    elif security.run_as_username:
        wanted, field = security.run_as_username, "config.linux.security_context.run_as_username"
    else:
        wanted, _, wanted_group = image_user.partition(":")
        field = "image user"
    uid, gid, home, name = _find_user(wanted or "0", passwd, f"{field}: user")
    if security.HasField("run_as_group"):
        if not (security.HasField("run_as_user") or security.run_as_username):
            raise InvalidArgument("config.linux.security_context.run_as_group: needs run_as_user or run_as_username")
        gid = _identity(str(security.run_as_group.value), "config.linux.security_context.run_as_group")
    elif wanted_group:
        gid = _find_group(wanted_group, group)
    groups = {gid}
    groups.update(_identity(str(g), "config.linux.security_context.supplemental_groups") for g in security.supplemental_groups)
    if security.supplemental_groups_policy == api.Merge and name:
        groups.update(_groups_of(name, group))
    if len(groups) > _MOST_GROUPS:
        raise InvalidArgument(f"{field}: {len(groups)} groups are more than the {_MOST_GROUPS} that a process can have")
    return User(uid, gid, tuple(sorted(groups)), home)


def _find_user(wanted: str, passwd: bytes, what: str) -> tuple[int, int, str, str]:
    """(uid, gid, home, name) of a name or a number. A number needs no line, and of one takes what is there (as containerd)."""
    if _is_numeric(wanted):
        uid = _identity(wanted, what)
        for name, _password, number, gid, _comment, home, *_ in _lines(passwd, 7):
            if parse_decimal(number, _HIGHEST_ID) == uid:
                return uid, parse_decimal(gid, _HIGHEST_ID) or 0, home or "/", name
        return uid, 0, "/", ""
    for name, _password, number, gid, _comment, home, *_ in _lines(passwd, 7):
        if name == wanted:
            what = f"{what} {wanted!r} in the image's /etc/passwd"
            return _identity(number, f"{what}: uid"), _identity(gid or "0", f"{what}: gid"), home or "/", name
    raise InvalidArgument(f"{what} {wanted[:_SHOWN]!r} is not in the image's /etc/passwd")


def _find_group(wanted: str, group: bytes) -> int:
    if _is_numeric(wanted):
        return _identity(wanted, "image user: group")
    for name, _password, gid, *_ in _lines(group, 4):
        if name == wanted:
            return _identity(gid, f"image user: group {wanted!r} in the image's /etc/group")
    raise InvalidArgument(f"image user: group {wanted[:_SHOWN]!r} is not in the image's /etc/group")


def _groups_of(user: str, group: bytes) -> Iterator[int]:
    """The groups that name `user` among their members; a line without a usable number names none."""
    for _name, _password, number, members, *_ in _lines(group, 4):
        gid = parse_decimal(number, _HIGHEST_ID)
        if gid is not None and user in members.split(","):
            yield gid


def _lines(content: bytes, fields: int) -> Iterator[list[str]]:
    """The lines of passwd(5) or group(5), with at least `fields` fields: what is missing is empty.

    Left out are comments, blank lines and those of NIS (+ and -), which name nobody of the image.
    """
    for line in content.split(b"\n"):
        stripped = line.strip()
        if stripped and stripped[:1] not in (b"#", b"+", b"-"):
            parts = stripped.decode(errors="surrogateescape").split(":")
            yield parts + [""] * (fields - len(parts))


def _is_numeric(text: str) -> bool:
    """Whether it is a number, in or out of range: such a one is never a name (CVE-2024-40635)."""
    digits = text.lstrip("-")
    return digits != "" and not digits.strip("0123456789")


def _identity(text: str, field: str) -> int:
    number = parse_decimal(text, _HIGHEST_ID)
    if number is None:
        raise InvalidArgument(f"{field}: {text[:_SHOWN]!r} is not within 0..{_HIGHEST_ID}")
    return number
