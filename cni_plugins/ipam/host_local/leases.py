"""What host-local has given out, for people to read."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cni_plugins.ipam.host_local.address_key import key_to_text
from cni_plugins.ipam.host_local.store import DEFAULT_DIRECTORY, LeaseStore
from runtime_core.errors import from_oserror


@dataclass(frozen=True)
class Lease:
    network: str
    address: str
    container_id: str
    interface: str


def list_leases(data_dir: str = DEFAULT_DIRECTORY) -> list[Lease]:
    """Of all networks under `data_dir`, by network and address; none where there is no such directory."""
    return [lease for network in networks(data_dir) for lease in list_network_leases(data_dir, network)]


def networks(data_dir: str) -> list[str]:
    """Of which there are leases under `data_dir`, by name."""
    try:
        # Every version of the plugin, ours and the reference's, locks a file of this name.
        return sorted(entry.name for entry in os.scandir(data_dir) if os.path.isfile(f"{entry.path}/lock"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise from_oserror(error, data_dir) from error


def list_network_leases(data_dir: str, network: str) -> list[Lease]:
    """By address. DataLoss where they cannot be read."""
    with LeaseStore(data_dir, network) as store:
        return [Lease(network, key_to_text(address), owner, interface) for address, owner, interface in store.leases()]
