"""The pool of threads behind every server: as many as there is work for, and none of them afterwards."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import wait

import pytest

from e2e.wait import wait_for
from runtime_core.serving.threads import Threads

_NAME = "pool-under-test"


def _living() -> int:
    return sum(thread.name == _NAME for thread in threading.enumerate())


def test_a_crowd_is_served_and_its_threads_end() -> None:
    """At most so many at once, all of them done; then the memory is given back, once."""
    calm: list[int] = []
    pool, gate = Threads(20, _NAME, idle_seconds=0.1, on_calm=lambda: calm.append(1)), threading.Event()
    futures = [pool.submit(lambda number: gate.wait(20) and number, number) for number in range(100)]
    assert _living() == 20
    gate.set()
    assert [future.result(20) for future in futures] == [*range(1), *range(1, 100)]
    wait_for("the end of the threads", lambda: _living() == 0, 20)
    assert calm == [1]


def test_who_was_busy_last_is_taken_first() -> None:
    """Else a call a second would keep all the threads of the last crowd."""
    pool = Threads(8, _NAME, idle_seconds=0.2, on_calm=lambda: None)
    barrier = threading.Barrier(8)
    wait([pool.submit(barrier.wait) for _number in range(8)])
    seen: set[int] = set()
    wait_for("one thread", lambda: seen.add(pool.submit(threading.get_ident).result(20)) or _living() == 1, 20)
    before = len(seen)
    assert before < 8
    for _number in range(20):
        seen.add(pool.submit(threading.get_ident).result(20))
    assert _living() == 1


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    """And the thread goes on to the next call."""
    pool = Threads(1, _NAME, idle_seconds=0.1)
    failed = pool.submit(lambda: 1 // 0)
    assert pool.submit(lambda: 7).result(20) == 7
    with pytest.raises(ZeroDivisionError):
        failed.result(20)


def test_a_call_that_was_taken_back_is_not_made() -> None:
    """Future.cancel, before it has begun."""
    pool, gate, made = Threads(1, _NAME, idle_seconds=0.1), threading.Event(), []
    first = pool.submit(gate.wait, 20)
    second = pool.submit(made.append, 1)
    assert second.cancel()
    gate.set()
    assert first.result(20) and pool.submit(lambda: 7).result(20) == 7
    assert made == []


def test_nothing_of_a_call_is_held_while_a_thread_waits() -> None:
    """A request may be megabytes."""

    class Request:
        pass

    pool, request = Threads(1, _NAME, idle_seconds=5), Request()
    seen = weakref.ref(request)
    pool.submit(lambda given: None, request).result(20)
    del request
    wait_for("its end", lambda: gc.collect() >= 0 and seen() is None, 3)


def test_many_callers_at_once_lose_nothing() -> None:
    """While threads come and go at the same time."""
    pool, total = Threads(4, _NAME, idle_seconds=0.0001, on_calm=lambda: None), 0
    lock = threading.Lock()

    def call() -> None:
        nonlocal total
        for _number in range(300):
            answer = pool.submit(lambda: 1).result(20)
            with lock:
                total += answer

    callers = [threading.Thread(target=call) for _number in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert total == 8 * 300
