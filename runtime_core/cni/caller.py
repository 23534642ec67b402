"""The runtime's side of CNI (specification sections 3 and 4): lists executed forwards and backwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runtime_core.cni import conf
from runtime_core.cni.cache import Attachment, Cache
from runtime_core.cni.conf import NetworkList
from runtime_core.cni.invoke import Plugins
from runtime_core.cni.request import Request
from runtime_core.errors import TrivetError
from runtime_core.kernel import failpoint

_CHECK_SINCE, _GC_SINCE = "0.4.0", "1.1.0"


class Caller:
    def __init__(self, plugins: Plugins, cache: Cache) -> None:
        self._plugins, self._cache = plugins, cache

    def add(self, network: NetworkList, attachment: Attachment) -> dict[str, Any]:
        """Attach; the last plugin's result. On error DEL has been called, and the error is raised."""
        self._cache.put(attachment)
        failpoint.hit("cni.add.cached")
        result: dict[str, Any] | None = None
        try:
            for plugin in network.plugins:
                result = self._call(network, plugin, "ADD", attachment, result)
                failpoint.hit("cni.add.plugin")
        except BaseException:
            self.delete(attachment)
            raise
        self._cache.put(replace(attachment, result=result))
        return result or {}

    def delete(self, attachment: Attachment) -> None:
        """Detach with what was cached; every plugin is asked, then the first error raised."""
        network = conf.parse(attachment.config, "the cached configuration")
        failure: TrivetError | None = None
        for plugin in reversed(network.plugins):
            try:
                self._call(network, plugin, "DEL", attachment, attachment.result)
            except TrivetError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        self._cache.remove(attachment.network, attachment.container_id, attachment.interface)

    def check(self, attachment: Attachment) -> None:
        network = conf.parse(attachment.config, "the cached configuration")
        if network.disable_check or network.version < _CHECK_SINCE:
            return
        for plugin in network.plugins:
            self._call(network, plugin, "CHECK", attachment, attachment.result)

    def collect_garbage(self, network: NetworkList, valid: list[Attachment]) -> list[TrivetError]:
        """DEL what is cached and not in `valid`, then GC by the plugins; the errors."""
        errors: list[TrivetError] = []
        kept = {(a.network, a.container_id, a.interface) for a in valid}
        for attachment in self._cache.all():
            if (
                attachment.network == network.name
                and (attachment.network, attachment.container_id, attachment.interface) not in kept
            ):
                try:
                    self.delete(attachment)
                except TrivetError as error:
                    errors.append(error)
        if network.disable_gc or network.version < _GC_SINCE:
            return errors
        listed = [{"containerID": a.container_id, "ifname": a.interface} for a in valid if a.network == network.name]
        for plugin in network.plugins:
            config = conf.plugin_config(network, plugin, None, {})
            try:
                self._plugins.call(plugin["type"], "GC", Request(config={**config, "cni.dev/valid-attachments": listed}))
            except TrivetError as error:
                errors.append(error)
        return errors

    def _call(
        self, network: NetworkList, plugin: dict[str, Any], verb: str, attachment: Attachment, previous: dict[str, Any] | None
    ) -> dict[str, Any]:
        request = Request(
            config=conf.plugin_config(network, plugin, previous, attachment.capabilities),
            container_id=attachment.container_id,
            netns=attachment.netns,
            interface=attachment.interface,
            args=attachment.args,
        )
        return self._plugins.call(plugin["type"], verb, request)
