"""The runtime's side of CNI (specification sections 3 and 4): lists executed forwards and backwards."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from runtime_core.cni import conf
from runtime_core.cni import result as cni_result
from runtime_core.cni.cache import Attachment, Cache
from runtime_core.cni.conf import NetworkList
from runtime_core.cni.invoke import Plugins
from runtime_core.cni.request import Request
from runtime_core.errors import TrivetError
from runtime_core.kernel import failpoint

_CHECK_SINCE, _GC_SINCE, _STATUS_SINCE = "0.4.0", "1.1.0", "1.1.0"
#: DEL is given the result of ADD since then
_PREVIOUS_SINCE = "0.4.0"
#: the specification's name, and what plugins read that were written after its first text
_VALID = ("cni.dev/valid-attachments", "cni.dev/attachments")


class Caller:
    """Executes the verbs over all plugins of a list, and keeps the cache."""

    def __init__(self, plugins: Plugins, cache: Cache) -> None:
        self._plugins, self._cache = plugins, cache

    def add(self, network: NetworkList, attachment: Attachment) -> dict[str, Any]:
        """Attach; the last plugin's result in Trivet's own shape. On error DEL has been called, and the error is raised."""
        self._cache.put(attachment)
        failpoint.hit("cni.add.cached")
        try:
            result = self._add_all(network, attachment)
            self._cache.put(replace(attachment, result=cni_result.export(result, network.version)))
        except BaseException as error:
            try:
                self.delete(attachment)
            except TrivetError as second:  # the attachment stays in the cache: a later DEL or GC finds it
                error.add_note(f"its DEL failed too: {second}")
            raise
        return result

    def _add_all(self, network: NetworkList, attachment: Attachment) -> dict[str, Any]:
        previous: dict[str, Any] | None = None
        result: dict[str, Any] = {}
        for plugin in network.plugins:
            answer = self._call(network, plugin, "ADD", attachment, previous)
            result = cni_result.read(answer, f"result of CNI plugin {plugin['type']}", network.version)
            previous = cni_result.export(result, network.version)
            failpoint.hit("cni.add.plugin")
        return result

    def delete(self, attachment: Attachment) -> None:
        """Detach with what was cached; every plugin is asked, then the first error raised."""
        network = conf.parse_for_removal(attachment.config, "the cached configuration")
        if not os.path.exists(attachment.netns):
            attachment = replace(attachment, netns="")
        previous = attachment.result if network.version >= _PREVIOUS_SINCE else None
        failure: TrivetError | None = None
        for plugin in reversed(network.plugins):
            try:
                self._call(network, plugin, "DEL", attachment, previous)
            except TrivetError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        self._cache.remove(attachment.network, attachment.container_id, attachment.interface)

    def check(self, attachment: Attachment) -> None:
        """Ask every plugin whether its part still stands; the first error is raised. Nothing is asked where the
        configuration forbids it, or when ADD has not ended."""
        network = conf.parse(attachment.config, "the cached configuration")
        if network.disable_check or network.version < _CHECK_SINCE or attachment.result is None:
            return
        for plugin in network.plugins:
            self._call(network, plugin, "CHECK", attachment, attachment.result)

    def status(self, network: NetworkList) -> None:
        """Ask every plugin whether ADD would succeed; the first error is raised. Those of ours are loaded then: who
        asks before the first pod has no call that waits for an import."""
        for kind in [kind for plugin in network.plugins for kind in (plugin["type"], plugin.get("ipam", {}).get("type"))]:
            self._plugins.load(kind)
        if network.version < _STATUS_SINCE:
            return
        for plugin in network.plugins:
            config = conf.plugin_config(network, plugin, None, {})
            self._plugins.call(plugin["type"], "STATUS", Request(config=config))

    def collect_garbage(self, network: NetworkList | None, valid: list[Attachment]) -> list[TrivetError]:
        """DEL what is cached, of whatever network, and not in `valid`; then GC by the plugins of `network`; the errors."""
        errors: list[TrivetError] = []
        kept = {(a.network, a.container_id, a.interface) for a in valid}
        for attachment in self._cache.all():
            if (attachment.network, attachment.container_id, attachment.interface) not in kept:
                try:
                    self.delete(attachment)
                except TrivetError as error:
                    errors.append(error)
        if network is not None:
            errors += self.call_gc(network, [(a.container_id, a.interface) for a in valid if a.network == network.name])
        return errors

    def call_gc(self, network: NetworkList, valid: list[tuple[str, str]] | None) -> list[TrivetError]:
        """GC by the plugins of `network`; the errors. `valid` are (container id, interface); None where the caller does
        not know who stands, and then nothing is said about it."""
        errors: list[TrivetError] = []
        if network.disable_gc or network.version < _GC_SINCE:
            return errors
        listed = {} if valid is None else {key: [{"containerID": c, "ifname": i} for c, i in valid] for key in _VALID}
        for plugin in network.plugins:
            config = {**conf.plugin_config(network, plugin, None, {}), **listed}
            try:
                self._plugins.call(plugin["type"], "GC", Request(config=config))
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
