"""Whatever JSON comes: the readers of results and configurations give a sound value or InvalidArgument, nothing else."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime_core.cni import conf
from runtime_core.cni.result import VERSIONS, export, pod_addresses, read
from runtime_core.errors import InvalidArgument

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
_TEXTS = st.sampled_from(
    ["10.0.0.2/24", "10.0.0.1", "fd00::2/64", "0.0.0.0/0", "::/0", "eth0", "/ns", "1.1.0", "0.2.0", "bridge"]
)
_ANY = st.recursive(
    _SCALARS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def _object(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object that has some of these fields, each mostly as it should be; or anything."""
    return st.fixed_dictionaries({}, optional={key: value | _ANY for key, value in fields.items()}) | _ANY


_VERSION = st.sampled_from([*VERSIONS, "9.9.9"])
_IP = _object(address=_TEXTS, gateway=_TEXTS, interface=st.integers(-2, 3), version=_TEXTS)
_ROUTE = _object(dst=_TEXTS, gw=_TEXTS, mtu=st.integers())
_OLD = _object(ip=_TEXTS, gateway=_TEXTS, routes=st.lists(_ROUTE, max_size=2))
_RESULTS = _object(
    cniVersion=_VERSION, ips=st.lists(_IP, max_size=3), routes=st.lists(_ROUTE, max_size=2), ip4=_OLD, ip6=_OLD,
    interfaces=st.lists(_object(name=_TEXTS, sandbox=_TEXTS), max_size=2), dns=_object(nameservers=st.lists(_TEXTS)),
)  # fmt: skip
_PLUGINS = st.lists(_object(type=_TEXTS, ipam=_object(type=_TEXTS), capabilities=_object(dns=st.booleans())), max_size=3)
_LISTS = _object(
    name=_TEXTS, cniVersion=_VERSION, cniVersions=st.lists(_VERSION, max_size=3), plugins=_PLUGINS, type=_TEXTS,
    disableCheck=st.booleans(), disableGC=st.booleans(),
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(_RESULTS, st.sampled_from(VERSIONS))
def test_any_result(document: Any, version: str) -> None:
    """What is accepted can be said in every version, read again, and its addresses are addresses."""
    try:
        result = read(document, "result", version)
    except InvalidArgument:
        return
    for address in pod_addresses(result):
        ipaddress.ip_address(address)
    for other in VERSIONS:
        again = read(export(result, other))
        assert {ip["address"] for ip in again["ips"]} <= {ip["address"] for ip in result["ips"]}


@settings(max_examples=600, deadline=None)
@given(_LISTS)
def test_any_configuration(document: Any) -> None:
    """What is accepted gives every plugin a configuration of its own."""
    try:
        network = conf.parse(document, "the file")
    except InvalidArgument:
        return
    for plugin in network.plugins:
        config = conf.plugin_config(network, plugin, None, {"dns": {"servers": []}})
        assert (config["name"], config["cniVersion"]) == (network.name, network.version)
