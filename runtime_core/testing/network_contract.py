"""The contract suite of `trivet.network`; who writes a driver subclasses it and overrides `make_network`.

    class TestMine(ConnectingNetworkContract):
        @pytest.fixture
        def make_network(self, node, tmp_path):
            return lambda: Mine(...)

A driver that gives pods no addresses takes `NetworkContract` alone. Each test runs on a node of
its own: a network namespace, in which the driver's object is made and called.
"""

from __future__ import annotations

import queue
import secrets
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime_core.errors import TrivetError
from runtime_core.interfaces.network import Network, PodNetwork
from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.testing import namespaces

_SECONDS = 20.0


class NetworkContract:
    """What every network promises."""

    @pytest.fixture
    def node(self) -> Iterator[None]:
        """The test runs in a network namespace that plays the node."""
        with namespaces.node_namespace():
            yield

    @pytest.fixture
    def make_network(self, node: None, tmp_path: Path) -> Callable[[], Network]:
        """What makes one driver object more, which knows what the earlier ones kept on disk."""
        raise NotImplementedError("override make_network")

    @pytest.fixture
    def network(self, make_network: Callable[[], Network]) -> Iterator[Network]:
        """The driver under test; closed at the end."""
        network = make_network()
        yield network
        network.close()

    @pytest.fixture
    def make_pod(self, node: None, tmp_path: Path) -> Iterator[Callable[[], PodNetwork]]:
        """What makes pods, each with a pinned network namespace."""
        made: list[Path] = []

        def make() -> PodNetwork:
            pod_id = secrets.token_hex(32)
            path = tmp_path / f"netns-{pod_id[:8]}"
            namespaces.pin_namespace(path)
            made.append(path)
            return PodNetwork(pod_id=pod_id, name=f"pod-{pod_id[:4]}", namespace="ns", uid=pod_id[:8], netns_path=str(path))

        yield make
        for path in made:
            namespaces.unpin_namespace(path)

    def remains(self) -> object:
        """What the driver keeps for pods outside their namespaces; more than links where a driver keeps more."""
        with netlink.Socket() as sock:
            return sorted(link.name for link in Links(sock).all())

    def test_it_says_that_it_is_ready(self, network: Network) -> None:
        """`status` gives a NetworkStatus, without a reason where nothing is wrong."""
        status = network.status()
        assert (status.is_ready, status.reason, status.message) == (True, "", "")

    def test_attach_says_what_the_namespace_has(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """The addresses are those of the pod's links that are up, and no others."""
        pod = make_pod()
        attached = network.attach(pod)
        assert set(attached.addresses) == namespaces.addresses(pod.netns_path)

    def test_detach_twice(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """The second one succeeds: who retries must be able to finish."""
        pod = make_pod()
        network.attach(pod)
        network.detach(pod)
        network.detach(pod)
        assert namespaces.addresses(pod.netns_path) == set()

    def test_detach_without_attach(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """A pod that was never attached is detached already."""
        before = self.remains()
        network.detach(make_pod())
        assert self.remains() == before

    def test_nothing_is_left_of_a_detached_pod(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """What stays is what another pod uses."""
        network.attach(make_pod())
        before = self.remains()
        pod = make_pod()
        network.attach(pod)
        network.detach(pod)
        assert self.remains() == before

    def test_detach_when_the_namespace_is_gone(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """A pod whose monitor was killed is detached like any other."""
        network.attach(make_pod())
        before = self.remains()
        pod = make_pod()
        network.attach(pod)
        namespaces.unpin_namespace(Path(pod.netns_path))
        network.detach(pod)
        assert self.remains() == before

    def test_another_object_detaches(
        self, network: Network, make_network: Callable[[], Network], make_pod: Callable[[], PodNetwork]
    ) -> None:
        """Whatever detach needs outlives the daemon that attached."""
        network.attach(make_pod())
        before = self.remains()
        pod = make_pod()
        network.attach(pod)
        network.close()
        second = make_network()
        second.detach(pod)
        second.close()
        assert self.remains() == before

    def test_garbage_is_what_is_not_named(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """The named pod keeps all it has, twice; what the other had is given back."""
        kept, forgotten = make_pod(), make_pod()
        addresses = network.attach(kept).addresses
        before = self.remains()
        network.attach(forgotten)
        namespaces.unpin_namespace(Path(forgotten.netns_path))
        for _time in range(2):
            network.collect_garbage([kept])
            assert self.remains() == before
            assert namespaces.addresses(kept.netns_path) == set(addresses)

    def test_close_twice(self, make_network: Callable[[], Network]) -> None:
        """The second one does nothing."""
        network = make_network()
        network.close()
        network.close()


class ConnectingNetworkContract(NetworkContract):
    """What a network promises that gives pods addresses."""

    def damage(self, pod: PodNetwork) -> None:
        """Take from the pod what `check` must miss: its links."""
        with namespaces.in_pinned_namespace(pod.netns_path) as links:
            for link in links.all():
                if link.name != "lo":
                    links.remove(link.name)

    def test_a_pod_has_a_default_route(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """For each IP version of which it has an address."""
        pod = make_pod()
        attached = network.attach(pod)
        assert attached.addresses
        assert {6 if ":" in address else 4 for address in attached.addresses} == namespaces.default_routes(pod.netns_path)

    def test_two_pods_reach_each_other(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """By the first address that was said of each."""
        one, other = make_pod(), make_pod()
        network.attach(one)
        target = network.attach(other).addresses[0]
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        with namespaces.in_pinned_namespace(other.netns_path):
            listening = socket.socket(family, socket.SOCK_DGRAM)
            listening.bind((target, 0))
        with namespaces.in_pinned_namespace(one.netns_path):
            sending = socket.socket(family, socket.SOCK_DGRAM)
        with listening, sending:
            listening.settimeout(_SECONDS)
            sending.sendto(b"hello", listening.getsockname())
            assert listening.recv(16) == b"hello"

    def test_no_two_pods_have_one_address(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """Also when they are attached at once."""
        pods = [make_pod() for _number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            attached = list(pool.map(network.attach, pods))
        addresses = [address for one in attached for address in one.addresses]
        assert len(set(addresses)) == len(addresses) >= 8

    def test_attach_twice(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """The second one gives what the first one gave, and takes nothing more."""
        pod = make_pod()
        first = network.attach(pod)
        before = self.remains()
        assert list(network.attach(pod).addresses) == list(first.addresses)
        assert self.remains() == before
        assert namespaces.addresses(pod.netns_path) == set(first.addresses)

    def test_a_failed_attach_leaves_nothing(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """Here the namespace has vanished before it began."""
        network.attach(make_pod())
        before = self.remains()
        pod = make_pod()
        namespaces.unpin_namespace(Path(pod.netns_path))
        with pytest.raises(TrivetError):
            network.attach(pod)
        assert self.remains() == before

    def test_check_complains_of_the_damaged_pod_alone(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """It returns at once, complains by the pod's id, and leaves every pod as it is."""
        sound, damaged = make_pod(), make_pod()
        addresses = network.attach(sound).addresses
        network.attach(damaged)
        self.damage(damaged)
        complaints: queue.Queue[tuple[str, TrivetError]] = queue.Queue()
        network.check([sound, damaged], lambda pod_id, error: complaints.put((pod_id, error)))
        assert complaints.get(timeout=_SECONDS)[0] == damaged.pod_id
        assert complaints.empty()
        assert namespaces.addresses(sound.netns_path) == set(addresses)
        network.detach(damaged)
