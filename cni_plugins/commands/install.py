"""trivet-cni install: the plugin executables in a directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from cni_plugins.install import IDLE_SECONDS, find_settings, install


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"), help="where to (default %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="also replace files that are not Trivet's")
    add_settings(parser)
    parser.add_argument("--script", action="store_true", help="executables are Python scripts, never machine code")
    parser.add_argument("--no-service", action="store_true", help="every call runs in its own process")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """What `serve` must be told as `install` was."""
    parser.add_argument("--packet-filter", default="nftables", help="driver of trivet.packetfilter (default %(default)s)")
    parser.add_argument(
        "--socket", default="", help="the service's socket (default: one in /run/trivet/cni for this installation)"
    )
    parser.add_argument(
        "--idle", type=float, default=IDLE_SECONDS, metavar="SECONDS",
        help="after which the service ends (default %(default)s; 0: never)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    settings = find_settings(
        arguments.packet_filter,
        service=not arguments.no_service,
        socket=arguments.socket,
        idle=arguments.idle,
        script=arguments.script,
    )
    names = install(arguments.bin_dir, overwrite=arguments.overwrite, settings=settings)
    print(f"installed {', '.join(names)} in {arguments.bin_dir}")
    return 0
