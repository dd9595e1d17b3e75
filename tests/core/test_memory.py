"""What to do when memory is short."""

import pytest
import torch

from llmad import memory
from llmad.errors import OutOfMemoryError
from llmad.memory import enough_memory, free, given_back, mapped


def test_a_shortage_is_told_in_one_line_with_its_cure():
    with pytest.raises(OutOfMemoryError) as error, enough_memory("ask for less"):
        raise torch.OutOfMemoryError("out of\nmemory")
    assert (str(error.value), error.value.hint, error.value.exit_code) == ("out of memory", "ask for less", 8)


def test_a_function_can_be_watched_more_than_once():
    @enough_memory("ask for less")
    def fail():
        raise torch.OutOfMemoryError

    for _ in range(2):
        with pytest.raises(OutOfMemoryError):
            fail()


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="other"), enough_memory(""):
        raise RuntimeError("other")


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
])  # fmt: skip
def test_the_machines_own_memory_may_be_short_too(error):
    with pytest.raises(OutOfMemoryError, match="memory") as caught, enough_memory("ask for less"):
        raise error
    assert caught.value.hint == "ask for less"


def test_torch_says_so_itself():
    with pytest.raises(OutOfMemoryError, match="memory"), enough_memory(""):
        torch.empty(1 << 50, dtype=torch.uint8)


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Plant the limits of a group; a place in the tree, and its files."""
    (tmp_path / "own").write_text("4:cpu,memory:/job/inner\n0::/job/inner\n")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN", tmp_path / "own")

    def group(place, **files):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name, text in {"stat": "anon 1", **files}.items():
            (tmp_path / place / f"memory.{name}").write_text(f"{text}\n")

    return group


def test_what_is_free_is_no_more_than_a_container_leaves(group):
    model = torch.nn.Linear(2, 2)
    whole = free(model)
    assert whole is not None
    assert whole > 10_000
    group("", max="1000", current="900")
    assert free(model) == 100
    group("", max="max", current="900")
    assert free(model) > 10_000


def test_files_that_may_be_dropped_are_free(group):
    group("", max="1000", current="900", stat="anon 500\ninactive_file 300")
    assert free(torch.nn.Linear(2, 2)) == 400


def test_the_tightest_of_the_groups_above_counts(group):
    group("job/inner", max="max", current="10")
    group("job", max="5000", current="1000")
    group("", max="9000", current="1000")
    assert free(torch.nn.Linear(2, 2)) == 4000


def test_groups_of_the_first_kind_count_too(group):
    group("memory/job", limit_in_bytes="5000", usage_in_bytes="1000", stat="total_inactive_file 500")
    assert free(torch.nn.Linear(2, 2)) == 4500
    group("memory/job/inner", limit_in_bytes="9223372036854771712", usage_in_bytes="1000")
    assert free(torch.nn.Linear(2, 2)) == 4500


def test_without_groups_the_machine_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_OWN", tmp_path / "none")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "none")
    assert free(torch.nn.Linear(2, 2)) > 10_000


def test_weights_that_are_pages_of_a_file_are_known(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(4096 * 8))
    model = torch.nn.Linear(64, 64)
    assert mapped(model) == 0
    weight = torch.from_file(str(tmp_path / "weights"), shared=True, size=64 * 64)
    model.weight = torch.nn.Parameter(weight.view(64, 64))
    assert mapped(model) == 4 * 64 * 64
    assert mapped(torch.nn.ModuleList([model, model])) == 4 * 64 * 64


def test_where_maps_cannot_be_read_none_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MAPS", tmp_path / "none")
    assert mapped(torch.nn.Linear(2, 2)) == 0


def test_a_device_that_does_not_tell_is_unknown():
    assert memory._free(torch.device("xpu")) is None


@pytest.mark.parametrize(("told", "edge"), [(None, 2**25), ("65536", 65536), (str(2**30), 2**25), ("much", 2**25)])
def test_the_c_library_may_be_told_what_to_give_back(monkeypatch, told, edge):
    if told is None:
        monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    else:
        monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", told)
    assert given_back() == edge
