"""Signals: the first one is noted, the second one ends the process; ignored ones stay ignored."""

import os
import signal
import threading

import pytest

from llmad.stopping import SIGNALS, Stopped, ending, stoppable, watching


@pytest.fixture(autouse=True)
def none_is_ignored():
    """A shell lets what it starts in the background ignore signals."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_a_second_one_stops(number):
    with watching() as watch:
        assert watch.asked is None
        os.kill(os.getpid(), number)
        assert watch.asked == number
        with pytest.raises(Stopped, match=f"stopped by {number.name}") as stop:
            os.kill(os.getpid(), number)
    assert stop.value.code == 128 + number


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_at_once_where_no_step_is_to_end(number):
    with pytest.raises(Stopped), stoppable():
        os.kill(os.getpid(), number)


def test_a_signal_is_the_system_s_where_python_may_not_come_to_it():
    with stoppable():
        before = [signal.getsignal(number) for number in SIGNALS]
        with ending():
            assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_DFL] * 3
        assert [signal.getsignal(number) for number in SIGNALS] == before


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with stoppable(), watching():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with watching() as watch:
            os.kill(os.getpid(), signal.SIGHUP)
            assert watch.asked is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_takes_no_signals():
    seen = []

    def run():
        with watching() as watch:
            seen.append(watch.asked)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [None]
