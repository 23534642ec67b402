"""trivet-cri: the daemon. The launcher is started before anything that makes a thread is imported."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from cri.settings import DEFAULT_FILE, Settings
from runtime_core import command_line, config
from runtime_core.launcher.client import Launcher

_JOBS = ["runtime_core.monitor.server", "runtime_core.images.unpack_worker", "runtime_core.streaming.server"]


def main() -> NoReturn:
    status = command_line.run("trivet-cri", _main)
    # Work that outlives its caller, a pull that waits for a registry, must not outlive the daemon as well.
    sys.stderr.flush()
    os._exit(status)


def _main() -> int:
    arguments = _parse()
    command_line.require_root("serve makes namespaces, mounts and cgroups for pods")
    settings = config.load_settings(Settings, arguments, DEFAULT_FILE)
    cgroups = _cgroup_entry(settings.cgroup_manager)
    launcher = Launcher.start([*_JOBS, cgroups.partition(":")[0]])
    from cri.daemon import Daemon  # now: it brings grpc, and with it threads

    Daemon(settings, launcher, cgroups).run()
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="trivet-cri", description="Trivet's container runtime for a kubelet.")
    command_line.add_version(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    config.add_options(commands.add_parser("serve", help="serve CRI on a socket"), Settings, DEFAULT_FILE)
    return parser.parse_args()


def _cgroup_entry(name: str) -> str:
    from runtime_core.cgroups.detect import detect_version
    from runtime_core.registry import locate

    return locate("cgroup", name or detect_version())


if __name__ == "__main__":
    main()
