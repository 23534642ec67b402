"""Mount flags: what is the mount's, what the file system's, and what nobody may choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_core.errors import InvalidArgument
from runtime_core.kernel import syscalls
from runtime_core.volumes import mount_flags

RDONLY, NOATIME = syscalls.MOUNT_ATTR_RDONLY, syscalls.MOUNT_ATTR_NOATIME


@pytest.mark.parametrize(
    ("flags", "options", "attributes"),
    [
        ([], (), 0),
        (["discard", "data=ordered"], ("discard", "data=ordered"), 0),
        (["noatime", "nodev"], (), NOATIME | syscalls.MOUNT_ATTR_NODEV),
        (["noatime", "relatime"], (), syscalls.MOUNT_ATTR_RELATIME),
        (["noexec", "exec"], (), 0),
        (["defaults", "rw"], (), 0),
        (["ro"], (), RDONLY),
        (['context="system_u:object_r:container_file_t:s0:c1,c2"'], ("context=system_u:object_r:container_file_t:s0:c1,c2",), 0),
    ],
)
def test_flags(flags: list[str], options: tuple[str, ...], attributes: int) -> None:
    """Later ones win; quotes around a label are the caller's, not the kernel's."""
    parsed = mount_flags.parse(flags)
    assert (parsed.options, parsed.attributes, parsed.read_only) == (options, attributes, bool(attributes & RDONLY))


@pytest.mark.parametrize(
    "flag",
    ["bind", "remount", "move", "rshared", "loop", "journal_path=/etc/shadow", "logdev=/dev/sda", "subvol=/", "norecovery", "errors=panic",
     "a b", "a\tb", "a,b", "a=b,c", "a=/x", "", "=", "A", "é", "a\n", "a=" + "x" * 65, 'commit="5"', "context=a b"],
)  # fmt: skip
def test_refused(flag: str) -> None:
    """InvalidArgument names which of the flags it is."""
    with pytest.raises(InvalidArgument, match=r"mount_flags\[1\]"):
        mount_flags.parse(["noatime", flag])


@given(st.text())
def test_nothing_else_than_the_grammar_gets_through(flag: str) -> None:
    """Neither a separator nor a control character reaches the kernel, whatever is asked for."""
    try:
        parsed = mount_flags.parse([flag])
    except InvalidArgument:
        return
    for option in parsed.options:
        assert option.isascii() and option.isprintable() and not set(option) & set(' /\\"')
