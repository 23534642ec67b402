"""trivet-csi: the hostpath driver."""

from __future__ import annotations

import argparse
import os
import sys

from csi_driver.daemon import Daemon
from csi_driver.settings import DEFAULT_FILE, SECTION, Settings
from runtime_core import config
from runtime_core.errors import TrivetError, from_oserror


def main() -> int:
    try:
        Daemon(config.settings(Settings, _parse(), DEFAULT_FILE, SECTION)).run()
    except (TrivetError, OSError) as failure:
        error = failure if isinstance(failure, TrivetError) else from_oserror(failure, "starting")
        print(f"trivet-csi: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="trivet-csi", description="Trivet's CSI hostpath driver.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    config.add_options(commands.add_parser("serve", help="serve CSI on a socket"), Settings, DEFAULT_FILE)
    arguments = parser.parse_args()
    # CSI, Configuration and Operation: whoever supervises a plugin names its socket so.
    if "endpoint" not in arguments and os.environ.get("CSI_ENDPOINT"):
        arguments.endpoint = os.environ["CSI_ENDPOINT"]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
