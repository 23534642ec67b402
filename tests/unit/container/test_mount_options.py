"""Mount options of the OCI runtime spec, by table."""

from __future__ import annotations

import pytest

from runtime_core.container.mount_options import Options, propagation
from runtime_core.errors import InvalidArgument
from runtime_core.kernel import syscalls

_RO, _NOSUID = syscalls.MOUNT_ATTR_RDONLY, syscalls.MOUNT_ATTR_NOSUID
_ATIME, _NOATIME = syscalls.MOUNT_ATTR__ATIME, syscalls.MOUNT_ATTR_NOATIME


@pytest.mark.parametrize(
    ("options", "attributes", "cleared"),
    [
        ([], 0, 0),
        (["ro"], _RO, 0),
        (["ro", "rw"], 0, _RO),
        (["rw", "ro"], _RO, 0),
        (["nosuid", "ro"], _RO | _NOSUID, 0),
        (["noatime"], _NOATIME, _ATIME),
        (["relatime"], 0, _ATIME),
        (["bind", "rbind", "defaults", "async"], 0, 0),
    ],
)
def test_attributes(options: list[str], attributes: int, cleared: int) -> None:
    """The last of two opposites wins, as with mount(8); an access-time mode clears the field first."""
    parsed = Options(options, "mounts[0]")
    assert (parsed.attributes, parsed.cleared, parsed.data) == (attributes, cleared, [])


@pytest.mark.parametrize(
    ("options", "attributes", "cleared"),
    [
        (["rro"], _RO, 0),
        (["rnoatime"], _NOATIME, _ATIME),
        (["rrw"], 0, _RO),
        (["rnosuid", "rro"], _RO | _NOSUID, 0),
    ],
)
def test_recursive_attributes(options: list[str], attributes: int, cleared: int) -> None:
    """An "r" before an option means all mounts below too."""
    parsed = Options(options, "mounts[0]")
    assert (parsed.recursive_attributes, parsed.recursive_cleared) == (attributes, cleared)
    assert (parsed.attributes, parsed.cleared) == (0, 0)


def test_propagation_and_data() -> None:
    """What is no flag belongs to the file system."""
    parsed = Options(["rslave", "size=64m", "mode=1777", "huge=never"], "mounts[0]")
    assert parsed.recursive_propagation == syscalls.MS_SLAVE
    assert parsed.data == ["size=64m", "mode=1777", "huge=never"]
    assert Options(["shared"], "").propagation == syscalls.MS_SHARED


def test_unsupported_options_are_named() -> None:
    """An option that would silently mean something else is refused, with its field."""
    with pytest.raises(InvalidArgument, match=r"mounts\[3\].options: 'tmpcopyup'"):
        Options(["tmpcopyup"], "mounts[3]")


@pytest.mark.parametrize(
    ("mode", "flag"),
    [
        ("", syscalls.MS_PRIVATE), ("rslave", syscalls.MS_SLAVE), ("slave", syscalls.MS_SLAVE),
        ("shared", syscalls.MS_SHARED), ("rprivate", syscalls.MS_PRIVATE), ("unbindable", syscalls.MS_UNBINDABLE),
    ],
)  # fmt: skip
def test_root_propagation(mode: str, flag: int) -> None:
    """Every mode of linux.rootfsPropagation."""
    assert propagation(mode) == flag


@pytest.mark.parametrize("mode", ["x", "r", "rr", "sslave", "Shared"])
def test_unknown_root_propagation(mode: str) -> None:
    """Anything else is an error that names the field."""
    with pytest.raises(InvalidArgument, match="linux.rootfsPropagation"):
        propagation(mode)
