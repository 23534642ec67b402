"""trivet-csi: the hostpath driver."""

from __future__ import annotations

import argparse
import os
import sys

from csi_driver.settings import DEFAULT_FILE, SECTION, Settings
from runtime_core import command_line, config


def main() -> int:
    return command_line.run("trivet-csi", _main)


def _main() -> int:
    arguments = _parse()
    command_line.require_root("serve mounts volumes")
    from csi_driver.daemon.daemon import Daemon  # now: it brings grpc, which --help and --version need not

    Daemon(config.load_settings(Settings, arguments, DEFAULT_FILE, SECTION)).run()
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="trivet-csi", description="Trivet's CSI hostpath driver.")
    command_line.add_version(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    config.add_options(commands.add_parser("serve", help="serve CSI on a socket"), Settings, DEFAULT_FILE)
    arguments = parser.parse_args()
    # CSI, Configuration and Operation: whoever supervises a plugin names its socket so.
    if "endpoint" not in arguments and os.environ.get("CSI_ENDPOINT"):
        arguments.endpoint = os.environ["CSI_ENDPOINT"]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
