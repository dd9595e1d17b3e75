"""The run directory: chosen, kept, and its status told."""

import json

import pytest

from llmad.errors import DivergedError, StorageError, UsageError
from llmad.run_dir import RunDir, choose, opened


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path / "run")


def status(run):
    return json.loads((run.path / "status.json").read_text())


def test_a_free_output_is_taken_and_not_yet_made(tmp_path):
    assert choose(str(tmp_path / "a" / "b"), "stem").path == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_free(tmp_path):
    assert choose(str(tmp_path), "stem").path == tmp_path


def test_a_folder_with_something_in_it_is_taken(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is not empty"):
        choose(str(tmp_path), "stem")


def test_a_file_in_the_way_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StorageError, match="file is in the way"):
            choose(str(output), "stem")


def test_without_an_output_a_free_name_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "stem").mkdir(parents=True)
    (tmp_path / "runs" / "stem" / "file").touch()
    assert choose(None, "stem").path.name == "stem-2"


def test_a_run_is_running_inside_and_done_after(run):
    with opened(run, {"seed": 1}):
        assert status(run) == {"status": "running"}
        assert json.loads(run.recipe.read_text()) == {"seed": 1}
    assert status(run) == {"status": "done"}


@pytest.mark.parametrize(
    ("error", "code"),
    [(DivergedError("diverged", "step 3"), "diverged"), (KeyboardInterrupt(), "KeyboardInterrupt")],
)
def test_a_run_that_raises_has_failed(run, error, code):
    with pytest.raises(type(error)), opened(run, {}):
        raise error
    assert status(run) == {"status": "failed", "code": code, "message": str(error)}


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Not a directory"), opened(RunDir(tmp_path / "file" / "run"), {}):
        pytest.fail("the run began")


def test_metrics_are_lines_and_can_be_rewound(run):
    run.path.mkdir()
    assert run.read_metrics() == []
    for step in (1, 2, 3):
        run.log({"step": step})
    run.rewind(2)
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]
    assert run.metrics.read_text().endswith("}\n")


def test_a_half_written_line_is_left_out(run):
    run.path.mkdir()
    run.log({"step": 1})
    with run.metrics.open("a") as stream:
        stream.write('{"st')
    assert run.read_metrics() == [{"step": 1}]


def test_a_fresh_run_has_nothing_to_rewind(run):
    run.path.mkdir()
    run.rewind(0)
    assert run.read_metrics() == []


def test_what_a_killed_run_left_unfinished_is_nothing(run):
    run.path.mkdir()
    for name in (".lock", ".recipe.json.x1y2.partial", ".adapter.gone"):
        (run.path / name).touch()
    assert choose(str(run.path), "stem").path == run.path
    with opened(run, {}):
        assert sorted(path.name for path in run.path.iterdir()) == [".lock", "recipe.json", "status.json"]
    assert sorted(path.name for path in run.path.iterdir()) == ["recipe.json", "status.json"]


def test_a_run_that_was_filled_since_it_was_chosen_is_refused(run):
    with opened(run, {"seed": 1}):
        pass
    with pytest.raises(UsageError, match="is not empty"), opened(run, {"seed": 2}):
        pytest.fail("the run began")
    assert run.told() == {"seed": 1}


def test_a_run_that_is_open_is_refused(run):
    with opened(run, {}), pytest.raises(StorageError, match="in use by process"), opened(run, {}):
        pytest.fail("the run began")
    assert run.status() == "done"


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_a_status_that_cannot_be_read_is_none(run, content):
    run.path.mkdir()
    assert run.status() == ""
    (run.path / "status.json").write_text(content)
    assert run.status() == ""


@pytest.mark.parametrize("line", ["", "{}", "[1]", '{"step": "x"}', '{"step": 1', "\xff"])
def test_a_damaged_line_is_named(run, line):
    run.path.mkdir()
    run.metrics.write_bytes(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n'.encode("latin-1"))
    with pytest.raises(StorageError, match=r"metrics\.jsonl:2: no line of metrics"):
        run.read_metrics()
