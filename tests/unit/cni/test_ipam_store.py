"""The store of host-local: never one address twice, none lost, and as quick when it is full as when it is empty."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cni_plugins.ipam.host_local.address_key import address_to_key, key_to_text, next_key, previous_key
from cni_plugins.ipam.host_local.leases import Lease, list_leases
from cni_plugins.ipam.host_local.store import LeaseStore
from runtime_core.errors import DataLoss, FailedPrecondition

_ALL = {
    "insert": lambda store, address: store.insert(address, "new", "eth0"),
    "delete": lambda store, address: store.delete(address),
    "first_free": lambda store, address: store.first_free(_key("10.0.0.1"), _key("10.0.255.254"), {_key("10.0.0.1")}),
    "owned": lambda store, address: store.owned("c7", "eth0"),
    "given_last": lambda store, address: (store.set_last_allocated(0, address), store.last_allocated(0)),
}


def _key(text: str) -> bytes:
    return address_to_key(ip_address(text))


class Sequences(RuleBasedStateMachine):
    """Any sequence of reservations and releases, against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.store = LeaseStore("/nowhere", "net")
        self.store._connection = self.connection
        self.store._ensure_schema(self.connection)
        self.model: dict[bytes, tuple[str, str]] = {}

    @rule(number=st.integers(0, 40), owner=st.sampled_from("abc"), interface=st.sampled_from(["eth0", "eth1"]))
    def insert(self, number: int, owner: str, interface: str) -> None:
        key = _key(f"10.0.0.{number}")
        assert self.store.insert(key, owner, interface) == (key not in self.model)
        self.model.setdefault(key, (owner, interface))

    @rule(first=st.integers(0, 42), last=st.integers(0, 42), kept=st.sets(st.integers(0, 42), max_size=4))
    def allocate(self, first: int, last: int, kept: set[int]) -> None:
        keys = {_key(f"10.0.0.{number}") for number in kept}
        free = [_key(f"10.0.0.{n}") for n in range(first, last + 1) if n not in kept and _key(f"10.0.0.{n}") not in self.model]
        found = self.store.first_free(_key(f"10.0.0.{first}"), _key(f"10.0.0.{last}"), keys)
        assert found == (free[0] if free else None)
        if found is not None:
            assert self.store.insert(found, "d", "eth0")
            self.model[found] = ("d", "eth0")

    @rule(owner=st.sampled_from("abcd"), interface=st.sampled_from(["eth0", "eth1"]))
    def release(self, owner: str, interface: str) -> None:
        expected = sorted(key for key, value in self.model.items() if value == (owner, interface))
        assert sorted(self.store.owned(owner, interface)) == expected
        for key in expected:
            self.store.delete(key)
            del self.model[key]

    @invariant()
    def the_tables_say_what_was_done(self) -> None:
        assert {address: (owner, interface) for address, owner, interface in self.store.leases()} == self.model
        runs = self.connection.execute("SELECT first, last FROM runs ORDER BY first").fetchall()
        inside = [n for first, last in runs for n in range(int.from_bytes(first), int.from_bytes(last) + 1)]
        assert inside == sorted(int.from_bytes(key) for key in self.model)
        assert all(next_key(before[1]) < behind[0] for before, behind in zip(runs, runs[1:], strict=False))

    def teardown(self) -> None:
        self.connection.close()


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10.0.0.0/16 with 65,000 leases in it, every second one of the last 20,000 free again."""
    directory = tmp_path_factory.mktemp("full")
    with LeaseStore(str(directory), "net") as store:
        for number in range(65000):
            store.insert(_key(f"10.0.{number // 256}.{number % 256}"), f"c{number}", "eth0")
        for number in range(45001, 65000, 2):
            store.delete(_key(f"10.0.{number // 256}.{number % 256}"))
    return directory


class Meter:
    """Counts the statements of a store, and the steps of SQLite's virtual machine, which every row read costs some."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.statements: list[str] = []
        self.steps = 0
        connection.set_trace_callback(self.statements.append)
        connection.set_progress_handler(self._step, 1)

    def _step(self) -> int:
        self.steps += 1
        return 0


@pytest.mark.parametrize("work", _ALL)
def test_the_work_does_not_grow_with_what_is_taken(full: Path, tmp_path: Path, work: str) -> None:
    """No more statements, and no more steps but for a branch or two, with 55,000 leases than with 4."""
    costs = []
    for directory in (tmp_path, full):
        with LeaseStore(str(directory), "net") as store:
            if directory == tmp_path:
                for number in (3, 4, 5, 7):
                    store.insert(_key(f"10.0.0.{number}"), f"c{number}", "eth0")
            address = _key("10.0.0.6") if directory == tmp_path else _key("10.0.195.81")
            if work == "delete":
                store.insert(address, "c", "eth0")
            meter = Meter(store._connection)
            _ALL[work](store, address)
            costs.append((len(meter.statements), meter.steps))
            store._connection.set_trace_callback(None)
            store._connection.set_progress_handler(None, 0)
            if work == "insert":
                store.delete(address)
    (few, few_steps), (many, many_steps) = costs
    assert many <= few
    assert many_steps <= few_steps + 20, (few_steps, many_steps)


def test_every_question_is_answered_by_an_index(full: Path) -> None:
    """No statement of an ADD or a DEL reads a table from end to end."""
    with LeaseStore(str(full), "net") as store:
        meter = Meter(store._connection)
        for question in _ALL.values():
            question(store, _key("10.0.0.77") if question is _ALL["delete"] else _key("10.1.0.77"))
        store._connection.set_trace_callback(None)
        assert len(meter.statements) > 10
        for statement in meter.statements:
            plan = [row[3] for row in store._connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
            assert all(step.startswith("SEARCH") for step in plan), (statement, plan)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A directory as the reference plugin leaves it, with what crashes and old versions leave."""
    directory = tmp_path / "net"
    directory.mkdir()
    for name, text in (
        ("10.0.0.2", "c1\r\neth0"), ("10.0.0.3", "c2\r\neth0"), ("10.0.0.9", "c1\r\neth1"), ("fd00::2", "c1\r\neth0"),
        ("10.0.0.4", ""), ("10.0.0.5", "\r\n"), ("10.0.0.6", "old"), ("10.0.0.7", "c3\r\n"),
        ("last_reserved_ip.0", "10.0.0.9"), ("last_reserved_ip.1", ""), ("last_reserved_ip.x", "10.0.0.1"), ("lock", ""),
        ("README", "not ours"),
    ):  # fmt: skip
        (directory / name).write_text(text)
    return tmp_path


_TAKEN_OVER = [
    Lease("net", "10.0.0.2", "c1", "eth0"), Lease("net", "10.0.0.3", "c2", "eth0"), Lease("net", "10.0.0.6", "old", ""),
    Lease("net", "10.0.0.7", "c3", ""), Lease("net", "10.0.0.9", "c1", "eth1"), Lease("net", "fd00::2", "c1", "eth0"),
]  # fmt: skip


def test_what_the_reference_plugin_kept_is_taken_over(reference: Path) -> None:
    """Empty and torn entries are nobody's; files of other names stay; round robin goes on."""
    assert list_leases(str(reference)) == _TAKEN_OVER
    assert sorted(os.listdir(reference / "net")) == ["README", "last_reserved_ip.x", "leases.db", "leases.db-journal", "lock"]
    with LeaseStore(str(reference), "net") as store:
        assert store.last_allocated(0) == _key("10.0.0.9")
        assert store.first_free(_key("10.0.0.2"), _key("10.0.0.9"), ()) == _key("10.0.0.4")
        assert [key_to_text(key) for key in store.owned("old", "eth0")] == ["10.0.0.6"]  # it stands for any interface
        assert [key_to_text(key) for key in store.owned("c1", "eth1")] == ["10.0.0.9"]


def test_what_the_reference_plugin_adds_later_is_taken_over_too(reference: Path) -> None:
    """As by a call that was under way while the node was changed over; an address that is ours already stays ours."""
    list_leases(str(reference))
    (reference / "net" / "10.0.0.4").write_text("late\r\neth0")
    (reference / "net" / "10.0.0.2").write_text("other\r\neth0")
    assert sorted([*_TAKEN_OVER, Lease("net", "10.0.0.4", "late", "eth0")], key=lambda one: one.address) == list_leases(
        str(reference)
    )


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """An address that is a link is no reservation, and the store says so rather than read another file."""
    (tmp_path / "net").mkdir()
    (tmp_path / "secret").write_text("c1\r\neth0")
    (tmp_path / "net" / "10.0.0.2").symlink_to(tmp_path / "secret")
    with pytest.raises(Exception, match=r"ipam.dataDir"), LeaseStore(str(tmp_path), "net"):
        pass
    assert (tmp_path / "secret").exists()


def test_a_block_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    """Neither an address nor a lock."""
    with pytest.raises(ZeroDivisionError), LeaseStore(str(tmp_path), "net") as store:
        store.insert(_key("10.0.0.2"), "c1", "eth0")
        1 / 0  # noqa: B018
    assert list_leases(str(tmp_path)) == []


def test_a_file_that_was_never_written_is_a_new_one(tmp_path: Path) -> None:
    """As a crash at its making leaves it."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "leases.db").write_bytes(b"")
    with LeaseStore(str(tmp_path), "net") as store:
        assert store.insert(_key("10.0.0.2"), "c1", "eth0")
    assert len(list_leases(str(tmp_path))) == 1


def test_a_damaged_file_is_refused_not_emptied(tmp_path: Path) -> None:
    """Emptied, it would give the addresses of living containers a second time. The lock is free again."""
    with LeaseStore(str(tmp_path), "net") as store:
        store.insert(_key("10.0.0.2"), "c1", "eth0")
    path = tmp_path / "net" / "leases.db"
    path.write_bytes(b"garbage" + path.read_bytes()[7:])
    for _time in range(2):
        with pytest.raises(DataLoss, match="leases.db is damaged"), LeaseStore(str(tmp_path), "net"):
            pass


_PAGE = 4096


def _many_leases(directory: Path) -> Path:
    """Of which nothing fits into one page; the database."""
    with LeaseStore(str(directory), "net") as store:
        for number in range(400):
            store.insert(next_key(_key(f"10.0.{number // 100}.{2 * (number % 100)}")), f"{number:064}", "eth0")
    return directory / "net" / "leases.db"


def test_every_page_of_zeroes_is_seen(tmp_path: Path) -> None:
    """Wherever it lies, and whether or not a call would meet it."""
    path = _many_leases(tmp_path)
    whole = path.read_bytes()
    assert len(whole) > 10 * _PAGE
    for place in range(0, len(whole), _PAGE):
        path.write_bytes(whole[:place] + bytes(_PAGE) + whole[place + _PAGE :])
        with pytest.raises(DataLoss, match="leases.db is damaged"), LeaseStore(str(tmp_path), "net") as store:
            store.check()
    path.write_bytes(whole)
    with LeaseStore(str(tmp_path), "net") as store:
        store.check()


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE runs",
        "DELETE FROM runs",
        "UPDATE leases SET address = 'text'",
        "UPDATE leases SET address = x'04'",
        "UPDATE runs SET first = x'', last = x''",
        "UPDATE leases SET container_id = CAST(x'ff' AS TEXT)",
    ],
)
def test_tables_that_cannot_be_are_damage(tmp_path: Path, statement: str) -> None:
    """An error of ours at whichever call meets it, never a crash."""
    with LeaseStore(str(tmp_path), "net") as store:
        store.insert(_key("10.0.0.2"), "c1", "eth0")
    with closing(sqlite3.connect(tmp_path / "net" / "leases.db")) as connection:
        connection.execute(statement)
        connection.commit()
    with pytest.raises(DataLoss, match="leases.db is damaged"), LeaseStore(str(tmp_path), "net") as store:
        for address in store.owned("c1", "eth0"):
            store.delete(address)
        store.leases()
        store.insert(_key("10.0.0.2"), "c1", "eth0")
        raise AssertionError("nothing was seen")


@pytest.mark.parametrize("length", [100, _PAGE, 3 * _PAGE])
def test_a_file_that_was_cut_is_damaged(tmp_path: Path, length: int) -> None:
    """In the middle of a page, or between two."""
    os.truncate(_many_leases(tmp_path), length)
    with pytest.raises(DataLoss, match="leases.db is damaged"), LeaseStore(str(tmp_path), "net") as store:
        store.check()


def test_a_later_programs_file_is_refused(tmp_path: Path) -> None:
    """By its schema version."""
    with LeaseStore(str(tmp_path), "net"):
        pass
    connection = sqlite3.connect(tmp_path / "net" / "leases.db")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(FailedPrecondition, match="schema version 9"), LeaseStore(str(tmp_path), "net"):
        pass


def test_a_directory_in_the_files_place(tmp_path: Path) -> None:
    """The message has the field and the path."""
    (tmp_path / "net" / "leases.db").mkdir(parents=True)
    with pytest.raises(Exception, match=r"ipam.dataDir: .*leases.db"), LeaseStore(str(tmp_path), "net"):
        pass
    with pytest.raises(Exception, match=r"ipam.dataDir"), LeaseStore(str(tmp_path / "net" / "lock"), "net"):
        pass


def test_keys_are_ordered_as_addresses_are() -> None:
    """Each family in itself, IPv4 before IPv6."""
    texts = ["0.0.0.0", "9.255.255.255", "10.0.0.0", "255.255.255.255", "::1", "fd00::ffff", "fd00::1:0"]
    keys = [_key(text) for text in texts]
    assert keys == sorted(keys)
    assert [key_to_text(key) for key in keys] == texts
    assert next_key(_key("10.0.0.255")) == _key("10.0.1.0")
    assert previous_key(_key("fd00::1:0")) == _key("fd00::ffff")
