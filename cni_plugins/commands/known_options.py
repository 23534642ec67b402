"""The options of each plugin of the set, by key and JSON type; OPTIONS of a plugin's module replaces its entry.

A nested dictionary is an object with those keys, a list of one an array of such values; Any is not looked into. A function
is the grammar of a text: it raises InvalidArgument.
"""

from __future__ import annotations

from typing import Any

from runtime_core.cni.addresses import address, interface, network

_IP_MASQ = {"ipMasq": bool, "ipMasqBackend": str}
_LINK = {"master": str, "mode": str, "mtu": int, "linkInContainer": bool}
_ROUTES = [{"dst": interface, "gw": address, "mtu": int, "advmss": int, "priority": int, "table": int, "scope": int}]
_RANGE = {"subnet": network, "rangeStart": address, "rangeEnd": address, "gateway": address}
_DNS = {"nameservers": [str], "domain": str, "search": [str], "options": [str]}
_PORTS = [{"hostPort": int, "containerPort": int, "protocol": str, "hostIP": address}]
_RATES = {"ingressRate": int, "ingressBurst": int, "egressRate": int, "egressBurst": int}

#: of every list, and of every plugin in it
LIST_OPTIONS: dict[str, Any] = {
    "cniVersion": str, "cniVersions": [str], "name": str, "disableCheck": bool, "disableGC": bool, "loadOnlyInlinedPlugins": bool,
    "plugins": [Any],
}  # fmt: skip
COMMON_PLUGIN_OPTIONS: dict[str, Any] = {
    "type": str, "name": str, "cniVersion": str, "capabilities": dict, "ipam": dict, "dns": _DNS, "args": dict,
    "runtimeConfig": {"portMappings": _PORTS, "bandwidth": _RATES, "ips": [interface], "ipRanges": [[_RANGE]], "mac": str,
                      "dns": dict, "deviceID": str, "aliases": dict, "infinibandGUID": str, "cgroupPath": str},
    "prevResult": dict,
}  # fmt: skip
COMMON_IPAM_OPTIONS: dict[str, dict[str, Any]] = {
    "host-local": {
        "ranges": [[_RANGE]], **_RANGE, "routes": _ROUTES, "dataDir": str, "resolvConf": str,
    },
    "static": {"addresses": [{"address": interface, "gateway": address}], "routes": _ROUTES, "dns": _DNS},
    "dhcp": {
        "daemonSocketPath": str, "priority": int, "request": [{"skipDefault": bool, "option": Any}],
        "provide": [{"option": Any, "value": str, "fromArg": str}],
    },
}  # fmt: skip
OPTIONS_BY_TYPE: dict[str, dict[str, Any]] = {
    "bridge": {
        "bridge": str, "isGateway": bool, "isDefaultGateway": bool, "forceAddress": bool, **_IP_MASQ, "mtu": int, "mac": str,
        "hairpinMode": bool, "promiscMode": bool, "vlan": int, "vlanTrunk": [{"id": int, "minID": int, "maxID": int}],
        "preserveDefaultVlan": bool, "macspoofchk": bool, "enabledad": bool, "disableContainerInterface": bool,
        "portIsolation": bool,
    },
    "ptp": {**_IP_MASQ, "mtu": int},
    "macvlan": {**_LINK, "mac": str, "bcqueuelen": int},
    "ipvlan": _LINK,
    "vlan": {"master": str, "vlanId": int, "mtu": int, "linkInContainer": bool},
    "host-device": {"device": str, "hwaddr": str, "kernelpath": str, "pciBusID": str, "deviceID": str},
    "tap": {"multiQueue": bool, "owner": int, "group": int, "selinuxContext": str, "bridge": str, "mtu": int, "mac": str},
    "dummy": {},
    "loopback": {},
    "portmap": {
        "backend": str, "snat": bool, "masqAll": bool, "markMasqBit": int, "externalSetMarkChain": str, "conditionsV4": [str],
        "conditionsV6": [str],
    },
    "bandwidth": {**_RATES, "shapedSubnets": [interface], "unshapedSubnets": [interface]},
    "firewall": {"backend": str, "firewalldZone": str, "iptablesAdminChainName": str, "ingressPolicy": str},
    "tuning": {
        "sysctl": dict, "mac": str, "mtu": int, "promisc": bool, "allmulti": bool, "txQLen": int, "dataDir": str,
    },
    "sbr": {"table": int, "addSourceHints": bool, "gateways": [address]},
    "vrf": {"vrfname": str, "table": int},
}  # fmt: skip
