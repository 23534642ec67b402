"""trivet-cni leases: the addresses that host-local has given out."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from cni_plugins.ipam.host_local.leases import list_leases
from cni_plugins.ipam.host_local.store import DEFAULT_DIRECTORY


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", default=DEFAULT_DIRECTORY, help="as in the configuration (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="one object per line")


def run(arguments: argparse.Namespace) -> int:
    leases = list_leases(arguments.data_dir)
    if arguments.json:
        for lease in leases:
            print(json.dumps(asdict(lease)))
        return 0
    rows = [("NETWORK", "ADDRESS", "CONTAINER", "INTERFACE")]
    rows += [(lease.network, lease.address, lease.container_id, lease.interface) for lease in leases]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, (*widths, 0), strict=True)).rstrip())
    return 0
