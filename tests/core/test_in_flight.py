"""A few slow calls at a time."""

from threading import Barrier, Event, Lock, get_ident
from time import sleep

import pytest

from llmad.in_flight import as_they_come


def test_results_come_as_they_are_there():
    last = Event()

    def work(number):
        if number == 0:
            assert last.wait(20)
        if number == 2:
            last.set()
        return number

    first, *others = as_they_come(work, range(3), 2)
    assert (first, sorted(others)) == (1, [0, 2])


def test_so_many_at_once():
    together = Barrier(3)  # lets three pass at a time
    assert sorted(as_they_come(lambda number: (together.wait(20), number)[1], range(9), 3)) == list(range(9))


def test_no_more_at_once():
    running, lock = [], Lock()

    def work(number):
        with lock:
            running.append(number)
        sleep(0.002)
        with lock:
            count = len(running)
            running.remove(number)
        return count

    assert max(as_they_come(work, range(30), 3)) <= 3


def test_one_at_once_stays_in_this_thread():
    assert set(as_they_come(lambda _: get_ident(), range(3), 1)) == {get_ident()}


def test_after_an_error_what_was_under_way_is_yielded_and_nothing_begun():
    begun, failed = [], Event()

    def work(number):
        begun.append(number)
        if number == 1:
            failed.set()
            raise ValueError("one")
        assert failed.wait(20)
        return number

    results, seen = as_they_come(work, range(100), 3), []
    with pytest.raises(ValueError, match="one"):
        seen.extend(results)
    assert sorted(seen) == [number for number in sorted(begun) if number != 1]
    assert len(begun) < 100


def test_no_jobs_no_results():
    assert list(as_they_come(len, [], 4)) == []
