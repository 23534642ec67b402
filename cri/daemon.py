"""The wiring of trivet-cri: drivers, records, recovery, server, and its end."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cri.container.create import host_device
from cri.events import Events
from cri.server import rpc_handlers
from cri.service import Service
from cri.settings import RuntimeHandler, Settings
from cri.translate.container import Device, Facts
from runtime_core.cgroups.detect import detect_version
from runtime_core.errors import InvalidArgument, TrivetError
from runtime_core.images.store import Images
from runtime_core.interfaces.runtime import Runtime, RuntimeContext
from runtime_core.kernel import capabilities, entry_point, memory, paths
from runtime_core.launcher.client import Launcher
from runtime_core.log import Log
from runtime_core.registry import load_driver, locate
from runtime_core.sandbox.node import Directories, Node
from runtime_core.sandbox.recover import recover
from runtime_core.serving import unix_server
from runtime_core.serving.stop_signals import stop_signals
from runtime_core.store.database import Database
from runtime_core.store.locks import lock_file
from runtime_core.streaming.client import Streams

_DRAIN_SECONDS = 10


class Daemon:
    def __init__(self, settings: Settings, launcher: Launcher, cgroups: str) -> None:
        """`cgroups`: entry point of the cgroup driver, which the launcher has loaded."""
        self._settings, self._launcher, self._cgroups = settings, launcher, cgroups
        self._log = Log(settings.log_level)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; the pods stay."""
        memory.share_arenas()
        path = unix_server.socket_path(self._settings.listen)
        for option, directory in (("--root", self._settings.root), ("--state", self._settings.state)):
            paths.make_private_directory(str(directory), option)
        # Another daemon would take this one's pods there for nobody's.
        state_lock = lock_file(self._settings.state / "daemon.lock")
        database = Database(self._settings.root)
        unix_server.prepare_socket(path)
        service = self._service(database)
        ended = stop_signals()
        recover(service.node, lambda what, error: self._log.warning("recovery", of=what, error=str(error)))
        service.node.images.collect_garbage(service.node.snapshotter.layers_in_use())
        server = unix_server.make_server(list(rpc_handlers(service)))
        unix_server.bind(server, path)
        server.start()
        memory.release_unused_memory()
        print(f"trivet-cri is ready on {path}", flush=True)
        os.read(ended, 1)
        service.events.close()
        server.stop(_DRAIN_SECONDS).wait()
        path.unlink(missing_ok=True)
        service.streams.close()
        service.node.network.close()
        self._launcher.close()
        database.close()
        os.close(state_lock)

    def _service(self, database: Database) -> Service:
        settings = self._settings
        cgroups = entry_point.load(self._cgroups)()
        snapshotter = load_driver("snapshotter", settings.snapshotter)(settings.root / settings.snapshotter)
        images = Images(
            settings.root,
            database,
            snapshotter,
            self._launcher,
            verifier=load_driver("image.verifier", settings.image_verifier)(),
            registry_directory=settings.registry_dir,
            silence=settings.pull_silence,
            deadline=settings.pull_deadline,
            least_rate=settings.pull_least_rate,
            largest_layer=settings.largest_layer,
        )
        node = Node(Directories(root=settings.root, state=settings.state), database, images, snapshotter, cgroups)
        node.runtimes = self._runtimes(node)
        node.network = load_driver("network", settings.network)(
            conf_dir=settings.cni_conf_dir,
            bin_dirs=settings.cni_bin_dir,
            cache_dir=settings.root / "cni",
            packet_filter=locate("packetfilter", settings.packet_filter),
        )
        facts = Facts(capabilities=capabilities.machine(), is_cgroup_v2=detect_version() == "v2", devices=host_devices())
        self._log_clamping(facts)
        return Service(
            node=node,
            facts=facts,
            log=self._log,
            events=Events(node),
            streams=Streams(self._launcher, settings.streaming),
            handlers={name: runtime.features() for name, runtime in node.runtimes.items()},
        )

    def _log_clamping(self, facts: Facts) -> None:
        """Once, here: a container whose oom_score_adj is clamped has no log to say it in."""
        if "CAP_SYS_RESOURCE" not in facts.capabilities:
            least = int(Path("/proc/self/oom_score_adj").read_text())
            self._log.warning("oom_score_adj is clamped", least=least, reason="this machine cannot give CAP_SYS_RESOURCE")

    def _runtimes(self, node: Node) -> dict[str, Runtime]:
        """Handler → runtime; handlers that say the same share one."""
        made: dict[str, Runtime] = {}
        found: dict[str, Runtime] = {}
        for name, handler in self._settings.handlers().items():
            key = json.dumps([handler.runtime, handler.settings], sort_keys=True, default=str)
            if key not in made:
                made[key] = self._runtime(node, name, handler)
            found[name] = made[key]
        return found

    def _runtime(self, node: Node, name: str, handler: RuntimeHandler) -> Runtime:
        context = RuntimeContext(
            launcher=self._launcher,
            cgroup_manager=self._cgroups,
            on_exit=node.container_ended,
            on_pod_lost=node.pod_lost,
            directory=str(self._settings.root / "runtimes" / handler.runtime),
            settings=handler.settings,
        )
        try:
            runtime: Runtime = load_driver("runtime", handler.runtime)(context)
        except InvalidArgument as error:
            raise InvalidArgument(f"runtime-handlers: {name!r}: {error}") from error
        return runtime


def host_devices() -> list[Device]:
    """The device nodes of the host, which a privileged container gets; never its own terminals."""
    found = []
    for directory, names, files in os.walk("/dev"):
        names[:] = [name for name in names if name not in ("pts", "shm", "mqueue", "fd") and not name.startswith(".")]
        for name in files:
            path = f"{directory}/{name}"
            if path in ("/dev/console", "/dev/ptmx", "/dev/tty") or os.path.islink(path):
                continue
            try:
                found.append(host_device(path))
            except TrivetError:
                continue  # no device, or gone since
    return found
