"""trivet-cri: the daemon. The launcher is started before anything that makes a thread is imported."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from runtime_core.errors import TrivetError
from runtime_core.launcher.client import Launcher

_MONITOR, _UNPACK = "runtime_core.monitor.server", "runtime_core.images.unpack_worker"


def main() -> int:
    arguments = _parse()
    try:
        cgroups = _cgroup_entry(arguments.cgroup_manager)
        launcher = Launcher.start([_MONITOR, _UNPACK, cgroups.partition(":")[0]])
        from cri.daemon import Daemon, Settings  # now: it brings grpc, and with it threads

        settings = Settings(
            listen=arguments.listen,
            root=arguments.root.absolute(),
            state=arguments.state.absolute(),
            cni_conf_dir=arguments.cni_conf_dir,
            cni_bin_dirs=tuple(arguments.cni_bin_dir),
            registry_dir=arguments.registry_dir,
            cgroups=cgroups,
            network=arguments.network,
            snapshotter=arguments.snapshotter,
            log_level=arguments.log_level,
        )
        return Daemon(settings, launcher).run()
    except TrivetError as error:
        print(f"trivet-cri: {error}", file=sys.stderr)
        return error.exit_status


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="trivet-cri", description="Trivet's container runtime for a kubelet.")
    serve = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("serve", help="serve CRI on a socket")
    option = serve.add_argument
    option("--listen", default="unix:///run/trivet/cri.sock", help="socket (default %(default)s)")
    option("--root", type=Path, default=Path("/var/lib/trivet"), help="images and records (default %(default)s)")
    option("--state", type=Path, default=Path("/run/trivet"), help="what a reboot ends (default %(default)s)")
    option("--cni-conf-dir", type=Path, default=Path("/etc/cni/net.d"), help="(default %(default)s)")
    option("--cni-bin-dir", action="append", default=[], help="may be repeated (default /opt/cni/bin)")
    option("--registry-dir", type=Path, default=Path("/etc/trivet/registries.d"), help="<host>/hosts.toml (default %(default)s)")
    option("--cgroup-driver", choices=["cgroupfs"], default="cgroupfs", help="(default %(default)s)")
    option("--cgroup-manager", default="", help="driver of trivet.cgroup (default: what the machine has)")
    option("--network", default="cni", help="driver of trivet.network (default %(default)s)")
    option("--snapshotter", default="overlayfs", help="driver of trivet.snapshotter (default %(default)s)")
    option("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    arguments = parser.parse_args()
    arguments.cni_bin_dir = arguments.cni_bin_dir or ["/opt/cni/bin"]
    return arguments


def _cgroup_entry(name: str) -> str:
    from runtime_core.cgroups.detect import detected
    from runtime_core.registry import locate

    return locate("cgroup", name or detected())


if __name__ == "__main__":
    sys.exit(main())
