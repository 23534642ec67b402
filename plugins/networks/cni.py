"""trivet.network cni: the first configuration list of a directory, watched, its plugins called in order."""

from __future__ import annotations

import ctypes
import os
import select
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime_core.cni import conf
from runtime_core.cni.cache import Attachment, Cache
from runtime_core.cni.caller import Caller
from runtime_core.cni.conf import NetworkList
from runtime_core.cni.invoke import Plugins
from runtime_core.errors import InvalidArgument, Unavailable
from runtime_core.interfaces.network import AttachedNetwork, NetworkStatus, PodNetwork
from runtime_core.registry import installed

_INTERFACE = "eth0"
_CHANGES = 0x2 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200  # IN_MODIFY CLOSE_WRITE MOVED_FROM MOVED_TO CREATE DELETE


class CniNetwork:
    """See runtime_core.interfaces.network. lo is the monitor's: it is up in every network namespace."""

    def __init__(self, *, conf_dir: Path, bin_dirs: Sequence[str], cache_dir: Path, packet_filter: str = "") -> None:
        self._conf_dir = conf_dir
        modules = {driver.name: driver.entry for driver in installed("cni")}
        self._cache = Cache(cache_dir)
        self._caller = Caller(Plugins(bin_dirs, modules, packet_filter=packet_filter), self._cache)
        self._network: NetworkList | None = None
        self._problem = ""
        self._load()
        self._stop, self._stopper = os.pipe2(os.O_CLOEXEC)
        threading.Thread(target=self._watch, name="cni-config", daemon=True).start()

    def attach(self, pod: PodNetwork) -> AttachedNetwork:
        network = self._network
        if network is None:
            raise Unavailable(f"network is not ready: {self._problem}")
        result = self._caller.add(network, self._attachment(pod, network))
        addresses = [ip["address"].partition("/")[0] for ip in result.get("ips") or []]
        return AttachedNetwork(addresses=addresses, result=result)

    def detach(self, pod: PodNetwork) -> None:
        for attachment in self._cache.of_container(pod.pod_id):
            netns = attachment.netns if os.path.exists(attachment.netns) else ""
            self._caller.delete(replace(attachment, netns=netns))

    def check(self, pod: PodNetwork) -> None:
        for attachment in self._cache.of_container(pod.pod_id):
            self._caller.check(attachment)

    def collect_garbage(self, pods: Sequence[PodNetwork]) -> None:
        known = {pod.pod_id for pod in pods}
        valid = [attachment for attachment in self._cache.all() if attachment.container_id in known]
        if self._network is not None:
            self._caller.collect_garbage(self._network, valid)

    def status(self) -> NetworkStatus:
        if self._network is None:
            return NetworkStatus(is_ready=False, reason="NetworkPluginNotReady", message=self._problem)
        return NetworkStatus(is_ready=True)

    def close(self) -> None:
        os.close(self._stopper)

    def _attachment(self, pod: PodNetwork, network: NetworkList) -> Attachment:
        capabilities: dict[str, Any] = {
            "portMappings": [dict(mapping) for mapping in pod.port_mappings],
            "bandwidth": dict(pod.bandwidth),
            "dns": {key: list(value) for key, value in pod.dns.items()},
            "cgroupPath": pod.cgroup_path,
        }
        return Attachment(
            container_id=pod.pod_id,
            interface=_INTERFACE,
            netns=pod.netns_path,
            network=network.name,
            config={
                "name": network.name,
                "cniVersion": network.version,
                "plugins": list(network.plugins),
                "disableCheck": network.disable_check,
                "disableGC": network.disable_gc,
            },
            args={
                "IgnoreUnknown": "1",
                "K8S_POD_NAMESPACE": pod.namespace,
                "K8S_POD_NAME": pod.name,
                "K8S_POD_INFRA_CONTAINER_ID": pod.pod_id,
                "K8S_POD_UID": pod.uid,
            },
            capabilities={key: value for key, value in capabilities.items() if value},
        )

    def _load(self) -> None:
        try:
            self._network = conf.load_first(self._conf_dir)
            self._problem = "" if self._network else f"no network configuration in {self._conf_dir}"
        except InvalidArgument as error:
            self._network, self._problem = None, str(error)

    def _watch(self) -> None:
        """Load again when the directory changes (inotify(7)); when it is not there yet, its parent is watched."""
        libc = ctypes.CDLL(None, use_errno=True)
        while True:
            notifier = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
            watched = self._conf_dir
            while not watched.is_dir():
                watched = watched.parent
            libc.inotify_add_watch(notifier, os.fsencode(watched), _CHANGES)
            self._load()  # what happened before the watch stood
            ready, _, _ = select.select([notifier, self._stop], [], [])
            os.close(notifier)
            if self._stop in ready:
                os.close(self._stop)
                return
            self._load()
