"""Who the container runs as: CRI's wishes, the image's, and the image's passwd and group files. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cri.api.v1 import api_pb2 as api
from runtime_core.errors import InvalidArgument

_HIGHEST_ID = 2**31 - 1
_MOST_DIGITS = 10


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def image_identity(user: str) -> tuple[int | None, str]:
    """(uid, user name) as CRI's Image wants them: one of the two, of the part before the colon."""
    name = user.partition(":")[0]
    if not name:
        return None, ""
    if name.isdigit():
        return _identity(name, "image user"), ""
    return None, name


def resolve(security: api.LinuxContainerSecurityContext, image_user: str, passwd: bytes, group: bytes) -> User:
    """Raises InvalidArgument for an unknown user or an id that cannot be (CVE-2024-40635)."""
    wanted_group = ""
    if security.HasField("run_as_user"):
        wanted, field = str(security.run_as_user.value), "config.linux.security_context.run_as_user"
    elif security.run_as_username:
        wanted, field = security.run_as_username, "config.linux.security_context.run_as_username"
    else:
        wanted, _, wanted_group = image_user.partition(":")
        field = "image user"
    entry = _find_user(wanted or "0", _lines(passwd, 7), f"{field}: user")
    uid, gid, home = entry[0], entry[1], entry[2]
    groups_of = _lines(group, 4)
    if security.HasField("run_as_group"):
        if not (security.HasField("run_as_user") or security.run_as_username):
            raise InvalidArgument("config.linux.security_context.run_as_group: needs run_as_user or run_as_username")
        gid = _identity(str(security.run_as_group.value), "config.linux.security_context.run_as_group")
    elif wanted_group:
        gid = _find_group(wanted_group, groups_of)
    extra = {_identity(str(g), "config.linux.security_context.supplemental_groups") for g in security.supplemental_groups}
    if security.supplemental_groups_policy == api.Merge and entry[3]:
        extra |= {int(line[2]) for line in groups_of if entry[3] in line[3].split(",") and _is_identity(line[2])}
    return User(uid, gid, tuple(sorted(extra | {gid})), home)


def _find_user(wanted: str, lines: list[list[str]], what: str) -> tuple[int, int, str, str]:
    """(uid, gid, home, name) of a name or a number; a number needs no line."""
    if wanted.lstrip("-").isdigit():
        uid = _identity(wanted, what)
        for line in lines:
            if line[2] == str(uid):
                return uid, _identity(line[3], what), line[5] or "/", line[0]
        return uid, 0, "/", ""
    for line in lines:
        if line[0] == wanted:
            return _identity(line[2], what), _identity(line[3], what), line[5] or "/", line[0]
    raise InvalidArgument(f"{what} {wanted!r} is not in the image's /etc/passwd")


def _find_group(wanted: str, lines: list[list[str]]) -> int:
    if wanted.lstrip("-").isdigit():
        return _identity(wanted, "image user: group")
    for line in lines:
        if line[0] == wanted:
            return _identity(line[2], "image user: group")
    raise InvalidArgument(f"image user: group {wanted!r} is not in the image's /etc/group")


def _lines(content: bytes, fields: int) -> list[list[str]]:
    found = []
    for line in content.decode(errors="replace").splitlines():
        parts = line.strip().split(":")
        if len(parts) >= fields and not line.startswith("#"):
            found.append(parts)
    return found


def _is_identity(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text) <= _HIGHEST_ID


def _identity(text: str, field: str) -> int:
    if not _is_identity(text):
        raise InvalidArgument(f"{field}: {text!r} is not within 0..{_HIGHEST_ID}")
    return int(text)
