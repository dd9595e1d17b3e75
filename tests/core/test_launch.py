"""What a launcher leaves in the environment: how many processes, who speaks, what is refused."""

import pytest

from llmad import launch
from llmad.errors import UsageError
from llmad.ranks import ALONE, Ranks


@pytest.fixture
def launched(monkeypatch):
    """As if this were one of several processes: `launched(rank=1, count=2, local=0)`."""
    monkeypatch.setattr(launch, "_joined", [])

    def launched(rank, count, local=None):
        for name, value in {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank if local is None else local}.items():
            monkeypatch.setenv(name, str(value))

    return launched


def test_without_a_launcher_there_is_one_that_speaks(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # some clusters' own
    assert (launch.expected(), launch.is_main(), launch.speaks()) == (1, True, True)
    assert launch.join() is ALONE
    launch.check_alone("this")


def test_a_launcher_of_one_is_none(launched):
    launched(0, 1)
    assert (launch.expected(), launch.join()) == (1, ALONE)


@pytest.mark.parametrize(
    ("rank", "local", "main", "speaks"), [(0, 0, True, True), (1, 1, False, False), (2, 0, False, True)]
)
def test_before_they_have_joined_the_first_of_a_machine_speaks(launched, rank, local, main, speaks):
    launched(rank, 4, local)
    assert (launch.expected(), launch.is_main(), launch.speaks()) == (4, main, speaks)


def test_who_has_joined_speaks_for_itself(launched):
    launched(1, 2)
    launch._joined.append(Ranks(1, 2))
    assert launch.speaks()
    assert launch.join() == Ranks(1, 2)


def test_what_runs_alone_is_refused(launched):
    launched(1, 2)
    with pytest.raises(UsageError, match="2 processes were launched; merging runs in one") as error:
        launch.check_alone("merging")
    assert error.value.code == "one-process"
    assert error.value.hint == "start llmad without a launcher; only llmad train takes one"


def test_more_processes_than_devices_are_refused(launched, monkeypatch):
    launched(2, 4)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 2)
    with pytest.raises(UsageError, match="3 or more processes were launched on a machine with 2 devices") as error:
        launch.join()
    assert error.value.code == "no-device"


def test_who_has_nothing_to_say_waits_for_the_other_to_say_it(monkeypatch):
    waited = []
    monkeypatch.setattr(launch.time, "sleep", waited.append)
    launch.give_way()
    assert waited == [2.0]
