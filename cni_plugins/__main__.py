"""trivet-cni: install the plugin executables."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cni_plugins.install import install
from runtime_core.errors import TrivetError


def main() -> int:
    parser = argparse.ArgumentParser(prog="trivet-cni", description="Trivet's CNI plugins.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("install", help="write the plugin executables")
    command.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"), help="where to (default %(default)s)")
    command.add_argument("--overwrite", action="store_true", help="also replace files that are not Trivet's")
    command.add_argument("--packet-filter", default="nftables", help="driver of trivet.packetfilter (default %(default)s)")
    arguments = parser.parse_args()
    try:
        names = install(arguments.bin_dir, overwrite=arguments.overwrite, packet_filter=arguments.packet_filter)
    except TrivetError as error:
        print(f"trivet-cni: {error}", file=sys.stderr)
        return error.exit_status
    print(f"installed {', '.join(names)} in {arguments.bin_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
