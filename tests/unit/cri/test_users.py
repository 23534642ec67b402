"""Users and groups as images have them: passwd(5) and group(5) as tools and people write them, by table."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri.api.v1 import api_pb2 as api
from cri.translate import users
from runtime_core.errors import InvalidArgument

_HIGHEST = 2**31 - 1


def _resolve(image_user: str, passwd: bytes | str = b"", group: bytes | str = b"", **security: Any) -> users.User:
    files = [content.encode() if isinstance(content, str) else content for content in (passwd, group)]
    return users.resolve_user(api.LinuxContainerSecurityContext(**security), image_user, *files)


@pytest.mark.parametrize(
    ("line", "uid", "gid", "home"),
    [
        ("app:x:1001:1001:App:/home/app:/bin/sh", 1001, 1001, "/home/app"),
        ("app:x:1001:1002:App:/home/app", 1001, 1002, "/home/app"),
        ("app:x:1001:1002:App", 1001, 1002, "/"),
        ("app:x:1001:1002", 1001, 1002, "/"),
        ("app:x:1001:", 1001, 0, "/"),
        ("app:x:1001", 1001, 0, "/"),
        ("app::1001:1002:::", 1001, 1002, "/"),
        ("app:x:01001:01002::/h", 1001, 1002, "/h"),
        ("app:x:1001:1002::/h:/bin/sh:more:and more", 1001, 1002, "/h"),
        ("  app:x:1001:1002::/h:/bin/sh  ", 1001, 1002, "/h"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_lines_with_fewer_fields(line: str, uid: int, gid: int, home: str, end: str) -> None:
    """By name and by number alike; what is missing is gid 0 and home "/"."""
    passwd = f"root:x:0:0::/root:/bin/sh{end or chr(10)}{line}{end}"
    for wanted in ("app", "1001", "0001001"):
        found = _resolve(wanted, passwd)
        assert (found.uid, found.gid, found.home) == (uid, gid, home)


@pytest.mark.parametrize("gid", ["abc", "-1", "4294967296", "2147483648", "١٢", "²", "1 2", "9" * 5000, "0x10"])
def test_a_gid_that_is_none(gid: str) -> None:
    """Who comes by number has gid 0; who comes by name is refused, and the message says where."""
    passwd = f"app:x:1001:{gid}::/home/app:/bin/sh\n"
    found = _resolve("1001", passwd)
    assert (found.uid, found.gid, found.home) == (1001, 0, "/home/app")
    with pytest.raises(InvalidArgument, match="'app' in the image's /etc/passwd: gid") as refused:
        _resolve("app", passwd)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("uid", ["", "abc", "-1", "4294967296", "٠", "0 ", "9" * 5000])
def test_a_uid_that_is_none_is_never_root(uid: str) -> None:
    """A name without a usable number is refused, and no number finds its line."""
    passwd = f"app:x:{uid}:7::/home/app:/bin/sh\n"
    with pytest.raises(InvalidArgument, match="'app' in the image's /etc/passwd: uid"):
        _resolve("app", passwd)
    assert _resolve("0", passwd) == users.User(0, 0, (0,), "/")


@pytest.mark.parametrize(
    "noise",
    [
        "# app:x:5:5::/no:",
        "#app:x:1001:5::/no:",
        "  # indented:x:1001:5::/no:",
        "",
        "   ",
        "+::::::",
        "+app:x:1001:5::/no:",
        "-app:x:1001:5::/no:",
        "+@netgroup::::::",
        "app",
        ":",
        "other:x:1001x:5::/no:",
        "\x00",
        "ü:x:1001000:5::/no:",
    ],
)
def test_what_stands_between_the_lines(noise: str) -> None:
    """Comments, blank lines, NIS and rubbish are nobody; users and groups behind them are found."""
    lines = [noise] if noise != "app" else ["apple"]
    passwd = "\n".join([*lines, "app:x:1001:1002::/home/app:", *lines])
    group = "\n".join([*lines, "staff:x:50:app", *lines])
    for wanted in ("app", "1001"):
        assert _resolve(wanted, passwd, group) == users.User(1001, 1002, (50, 1002), "/home/app")
    assert _resolve("app:staff", passwd, group).gid == 50


def test_a_separator_of_unicode_starts_no_line() -> None:
    """Form feeds and U+2028 are characters of a comment, not the end of a line: nobody is smuggled in."""
    for separator in ("\x0b", "\x0c", "\x1c", "\x85", "\u2028"):
        passwd = f"a:x:5:5:comment{separator}root2:x:0:0::/root:\n"
        with pytest.raises(InvalidArgument, match="root2"):
            _resolve("root2", passwd)


def test_names_that_are_not_utf8_are_told_apart() -> None:
    """One odd byte is not another."""
    assert _resolve("5", b"\xff:x:4:4::/a:\n\xfe:x:5:6::/b:\n", b"g:x:9:\xff\nh:x:10:\xfe\n").groups == (6, 10)


def test_of_two_lines_the_first_counts() -> None:
    """For a name, for a number, and for a group; members of every line of one name."""
    passwd = "app:x:1:11::/a:\napp:x:2:22::/b:\nzwo:x:1:33::/c:\n"
    group = "staff:x:50:\nstaff:x:51:app\nother:x:52:zwo,app\nother:x:52:app\n"
    assert _resolve("app", passwd, group) == users.User(1, 11, (11, 51, 52), "/a")
    assert _resolve("1", passwd, group) == users.User(1, 11, (11, 51, 52), "/a")
    assert _resolve("2", passwd, group) == users.User(2, 22, (22, 51, 52), "/b")
    assert _resolve("app:staff", passwd, group).gid == 50


@pytest.mark.parametrize(
    ("line", "groups"),
    [
        ("staff:x:50:app,other", (50, 1001)),
        ("staff:x:50:other,app\r", (50, 1001)),
        ("staff::50:app", (50, 1001)),
        ("staff:x:50", (1001,)),
        ("staff:x:50:", (1001,)),
        ("staff:x::app", (1001,)),
        ("staff:x:abc:app", (1001,)),
        ("staff:x:4294967296:app", (1001,)),
        ("staff:x:²:app", (1001,)),
        ("staff:x", (1001,)),
        ("staff", (1001,)),
        ("staff:x:50:apple,ap", (1001,)),
        ("+staff:x:50:app", (1001,)),
        ("#staff:x:50:app", (1001,)),
    ],
)
def test_supplemental_groups(line: str, groups: tuple[int, ...]) -> None:
    """Of lines with a number and the name among the members; what is unusable is left out."""
    assert _resolve("app", "app:x:1001:1001\n", f"{line}\n").groups == groups
    assert _resolve("app", "app:x:1001:1001\n", f"{line}\n", supplemental_groups_policy=api.Strict).groups == (1001,)


@pytest.mark.parametrize(
    ("wanted", "uid", "gid", "groups"),
    [
        ("app", 1001, 1002, (50, 1002)),
        ("app:", 1001, 1002, (50, 1002)),
        ("app:staff", 1001, 50, (50,)),
        ("app:short", 1001, 60, (50, 60)),
        ("app:7", 1001, 7, (7, 50)),
        ("1001:staff", 1001, 50, (50,)),
        ("1001:7", 1001, 7, (7, 50)),
        ("4000", 4000, 0, (0,)),
        ("4000:7", 4000, 7, (7,)),
        ("4000:staff", 4000, 50, (50,)),
        (":7", 0, 7, (7,)),
        ("", 0, 0, (0,)),
        (f"{_HIGHEST}:{_HIGHEST}", _HIGHEST, _HIGHEST, (_HIGHEST,)),
        ("0" * 5000 + "7", 7, 0, (0,)),
    ],
)
def test_forms_of_user(wanted: str, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Names and numbers on either side of the colon."""
    found = _resolve(wanted, "app:x:1001:1002\n", "staff:x:50:app\nshort:x:60\n")
    assert (found.uid, found.gid, found.groups) == (uid, gid, groups)


@pytest.mark.parametrize(
    "wanted",
    ["-1", "--1", f"{_HIGHEST + 1}", "4294967296", "9" * 5000, "١٢", "²", "+5", "5.0", "nobody", "5:-1", "5:²", "5:none",
     "5:4294967296", "5:" + "9" * 5000, "app:broken", "x" * 5000],
)  # fmt: skip
def test_who_cannot_be_is_refused(wanted: str) -> None:
    """No overflow, no Unicode digit, and a message of bounded length that names the image's user."""
    with pytest.raises(InvalidArgument, match="image user") as refused:
        _resolve(wanted, "app:x:1001:1002\n", "broken:x:abc:\n")
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("user", "uid", "name"),
    [("", None, ""), ("app:staff", None, "app"), ("12:7", 12, ""), ("007", 7, ""), ("4294967296", None, "4294967296"),
     ("²", None, "²"), ("١٢", None, "١٢"), ("9" * 5000, None, "9" * 5000), ("-1", None, "-1")],
)  # fmt: skip
def test_what_an_image_is_listed_with(user: str, uid: int | None, name: str) -> None:
    """A number that can be an id; anything else is its name, and no reason to fail the list."""
    assert users.image_identity(user) == (uid, name)


def test_a_long_file_and_too_many_groups() -> None:
    """Four megabytes are read to their end; more groups than setgroups(2) takes are refused."""
    passwd = "".join(f"user{number}:x:{number}:{number}::/:\n" for number in range(100_000)) + "last:x:7:8::/last:\n"
    assert _resolve("last", passwd).gid == 8
    assert _resolve("user99999", passwd).gid == 99_999
    group = "".join(f"g{number}:x:{number}:app\n" for number in range(65_537))
    assert len(_resolve("app", "app:x:1:1\n", group[: group.index("g65536")]).groups) == 65_536
    with pytest.raises(InvalidArgument, match="65537 groups"):
        _resolve("app", "app:x:1:1\n", group)


@given(st.binary(max_size=200), st.binary(max_size=200), st.text(max_size=20))
def test_no_file_breaks_it(passwd: bytes, group: bytes, wanted: str) -> None:
    """Whatever an image has there, the answer is a user within bounds or InvalidArgument."""
    try:
        found = _resolve(wanted, passwd, group)
    except InvalidArgument:
        return
    assert 0 <= found.uid <= _HIGHEST and all(0 <= gid <= _HIGHEST for gid in found.groups)
    assert found.gid in found.groups
    os.fsencode(found.home)
