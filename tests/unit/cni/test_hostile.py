"""Whatever JSON comes: the readers of results and configurations give a sound value or InvalidArgument, nothing else."""

from __future__ import annotations

import ipaddress
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugins.ipam import static
from cni_plugins.ipam.dhcp import plugin as dhcp
from cni_plugins.ipam.host_local import plugin as host_local
from cni_plugins.ipam.host_local.leases import list_leases
from runtime_core.cni import conf
from runtime_core.cni.request import Request
from runtime_core.cni.result import VERSIONS, export, pod_addresses, read
from runtime_core.errors import InvalidArgument, TrivetError

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


_RANGE = _object(subnet=_TEXTS | st.just("10.0.0.0/30"), rangeStart=_TEXTS, rangeEnd=_TEXTS, gateway=_TEXTS)
_IPAM = _object(
    subnet=_TEXTS | st.just("10.0.0.0/24"), ranges=st.lists(st.lists(_RANGE, max_size=2), max_size=2), gateway=_TEXTS,
    routes=st.lists(_ROUTE, max_size=2), resolvConf=_TEXTS, addresses=st.lists(_object(address=_TEXTS, gateway=_TEXTS), max_size=2),
    dns=_object(nameservers=st.lists(_TEXTS)), priority=st.integers(), daemonSocketPath=st.just("/nowhere"),
    provide=st.lists(_object(option=st.just("12"), value=_TEXTS, fromArg=_TEXTS), max_size=2),
    request=st.lists(_object(option=st.just("6"), skipDefault=st.booleans()), max_size=2),
)  # fmt: skip
_CONFIGS = st.fixed_dictionaries(
    {"name": st.just("net"), "cniVersion": st.sampled_from(VERSIONS), "ipam": _IPAM},
    optional={
        "runtimeConfig": _object(ips=st.lists(_TEXTS, max_size=2), ipRanges=st.lists(st.lists(_RANGE, max_size=1), max_size=1)),
        "args": _object(cni=_object(ips=st.lists(_TEXTS, max_size=2))),
        "cni.dev/valid-attachments": st.lists(_object(containerID=_TEXTS, ifname=_TEXTS), max_size=2) | _ANY,
    },
)
_ARGS = st.dictionaries(st.sampled_from(["IP", "GATEWAY", "MAC", "IgnoreUnknown", "K"]), _TEXTS | st.text(max_size=8), max_size=3)


@pytest.mark.parametrize("module", [host_local, static, dhcp])
@settings(max_examples=250, deadline=None)
@given(_CONFIGS, _ARGS)
def test_any_configuration_of_an_address_plugin(module: Any, config: dict[str, Any], args: dict[str, str]) -> None:
    """Each verb succeeds or refuses by an error of ours; what ADD gives can be read, and DEL releases it."""
    with tempfile.TemporaryDirectory() as directory:
        if isinstance(config["ipam"], dict):
            config["ipam"]["dataDir"] = directory
            config["ipam"].setdefault("daemonSocketPath", "/nowhere")
        elif module is not static:
            return  # it would look for its state where this machine has it
        request = Request(config=config, container_id="c1", interface="eth0", args=args)
        for verb in (module.status, module.check, module.gc):
            try:
                verb(request)
            except TrivetError:
                pass
        try:
            found = read(export(module.add(request), "1.1.0"))
        except TrivetError:
            found = None
        assert found is None or module is static or found["ips"]
        if module is host_local:
            assert len(list_leases(directory)) == (len(found["ips"]) if found else 0)
        try:
            module.delete(request)
        except TrivetError:
            assert module is dhcp
        assert list_leases(directory) == []
