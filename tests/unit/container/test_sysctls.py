"""Which sysctls belong to a namespace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_core.container import sysctls
from runtime_core.errors import InvalidArgument


@pytest.mark.parametrize(
    ("key", "namespace"),
    [
        ("kernel.shmmax", "ipc"), ("kernel/shmmax", "ipc"), ("fs.mqueue.msg_max", "ipc"), ("kernel.sem", "ipc"),
        ("net.ipv4.tcp_syncookies", "network"), ("net/ipv4/conf/eth0.100/rp_filter", "network"),
        ("net.ipv4.conf.eth0/100.rp_filter", "network"), ("kernel.domainname", "uts"),
    ],
)  # fmt: skip
def test_namespaced(key: str, namespace: str) -> None:
    """Both spellings of sysctl(8); an interface name may contain the other separator."""
    assert sysctls.namespace_of(key) == namespace


@pytest.mark.parametrize(
    "key",
    [
        "", ".", "/", "kernel", "kernel.core_pattern", "kernel.hostname", "kernel.shmmax.x", "vm.overcommit_memory",
        "net", "netx.a", "net..x", "net/../kernel/core_pattern", "net/./x", "/net/x", "fs.mqueue",
    ],
)  # fmt: skip
def test_machine_wide_or_malformed(key: str) -> None:
    """Everything else is refused, and by its name."""
    with pytest.raises(InvalidArgument, match="sysctl"):
        sysctls.namespace_of(key)


@given(st.text(alphabet="net./ker.l", max_size=20))
def test_no_path_leaves_its_directory(key: str) -> None:
    """Whatever the key, it is refused or stays below its directory."""
    try:
        sysctls.namespace_of(key)
    except InvalidArgument:
        return
    assert ".." not in sysctls._path(key).split("/")


@pytest.mark.parametrize("value", ["1\n2", "1\0"])
def test_values_with_control_characters(value: str) -> None:
    """A value is one line (CVE-2022-0811)."""
    with pytest.raises(InvalidArgument, match="control"):
        sysctls.write({"net.ipv4.ip_forward": value})
