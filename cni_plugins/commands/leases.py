"""trivet-cni leases: the addresses that host-local has given out."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from cni_plugins.ipam.host_local.leases import Lease, list_network_leases, networks
from cni_plugins.ipam.host_local.store import DEFAULT_DIRECTORY
from runtime_core.errors import TrivetError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", default=DEFAULT_DIRECTORY, help="dataDir of the configuration (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="one object per line")


def run(arguments: argparse.Namespace) -> int:
    leases: list[Lease] = []
    failures = 0
    for network in networks(arguments.data_dir):
        try:
            leases += list_network_leases(arguments.data_dir, network)
        except TrivetError as error:  # of one network: the others' are shown all the same
            print(f"trivet-cni: {error}", file=sys.stderr)
            failures += 1
    _print(leases, as_json=arguments.json)
    return 1 if failures else 0


def _print(leases: list[Lease], *, as_json: bool) -> None:
    if as_json:
        for lease in leases:
            print(json.dumps(asdict(lease)))
        return
    rows = [("NETWORK", "ADDRESS", "CONTAINER", "INTERFACE")]
    rows += [(lease.network, lease.address, lease.container_id, lease.interface) for lease in leases]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, (*widths, 0), strict=True)).rstrip())
