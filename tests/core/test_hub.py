"""Data sets on the hub: names, pinned commits, and what `datasets` reads, from folders that stand in for the hub."""

import json
from dataclasses import replace

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from llmad import Hub, hub, rows
from llmad.errors import DataError, UsageError
from llmad.registry import registry

COMMIT, OTHER = "0123456789" * 4, "f" * 40
GSM8K = replace(
    registry().task("gsm8k"),
    hub={"train": Hub("openai/gsm8k", COMMIT, "train", "main"), "test": Hub("openai/gsm8k", "", "test")},
    convert=lambda entry: (
        {"instruction": entry["question"], "output": entry["answer"]} if "question" in entry else None
    ),
)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of folders that `datasets` reads in place of the hub, as if each were at a commit."""
    real = datasets.load_dataset_builder

    def builder(name, config, revision):
        made = real(str(tmp_path / name), config, cache_dir=str(tmp_path / "cache"))
        made.hash = COMMIT
        asked.append((name, config, revision))
        return made

    asked = []
    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    (tmp_path / "me" / "set").mkdir(parents=True)
    return tmp_path / "me" / "set", asked


PLACES = {
    f"hub:me/set@{COMMIT}": Hub("me/set", COMMIT, "train"),
    f"hub:me/set:main@{COMMIT}": Hub("me/set", COMMIT, "train", "main"),
    f"hub:me/set@{COMMIT}#validation": Hub("me/set", COMMIT, "validation"),
    f"hub:me-1/set.v2_x:20231101.en@{COMMIT}#a.b": Hub("me-1/set.v2_x", COMMIT, "a.b", "20231101.en"),
    "hub": Hub("openai/gsm8k", COMMIT, "train", "main"),
    f"hub@{OTHER}": Hub("openai/gsm8k", OTHER, "train", "main"),
    "hub#half": Hub("openai/gsm8k", COMMIT, "half", "main"),
    f"hub@{OTHER}#half": Hub("openai/gsm8k", OTHER, "half", "main"),
}


@pytest.mark.parametrize(("data", "found"), PLACES.items())
def test_a_place_is_read(data, found):
    assert hub.is_place(data)
    assert not hub.faults(data)
    assert hub.place(data, GSM8K, "train") == found
    assert hub.place(hub.name(found), GSM8K, "test") == found
    assert hub.names_no_split(data) == ("#" not in data)


@pytest.mark.parametrize("data", ["./hub", "hub.json", "hub/rows.json", "github:me/set", "hubs", "HUB"])
def test_a_path_is_no_place(data):
    assert not hub.is_place(data)


MALFORMED = {
    "hub:": "is no place on the hub",
    "hub:set@" + COMMIT: "is no place on the hub",
    "hub:a/b/c@" + COMMIT: "is no place on the hub",
    "hub:../b@" + COMMIT + "@": "is no place on the hub",
    f"hub:me/set@{COMMIT}:main": "'0123456789012345678901234567890123456789:main' is no commit",
    f"hub:me/set@{COMMIT}#train[:5]": "is no place on the hub",
    "hub:me/set": "names no commit, and a data set may change",
    "hub:me/set#train": "names no commit",
    "hub:me/set@main": "'main' is no commit, and may move",
    "hub:me/set@v1.0": "'v1.0' is no commit",
    "hub@0123abc": "'0123abc' is no commit",
}


@pytest.mark.parametrize(("data", "said"), MALFORMED.items())
def test_what_is_malformed_or_not_pinned_is_refused_with_the_cure(data, said):
    (error,) = hub.faults(data)
    assert said in str(error)
    assert "hub:OWNER/NAME@COMMIT" in error.hint
    with pytest.raises(UsageError):
        hub.place(data, GSM8K, "train")


def test_a_task_without_a_place_or_a_commit_is_told():
    with pytest.raises(DataError, match="task arithmetic names no train rows on the hub"):
        hub.place("hub", registry().task("arithmetic"), "train")
    with pytest.raises(UsageError, match="task gsm8k reads openai/gsm8k, and no commit of it is pinned") as error:
        hub.place("hub", GSM8K, "test")
    assert "hub@COMMIT" in error.value.hint


def test_a_task_whose_rows_lie_on_the_hub_says_so():
    with pytest.raises(DataError) as error:
        GSM8K.rows("test", 0, 0)
    assert error.value.hint.endswith(", or --data hub")


def test_parquet_on_the_hub_is_read_at_its_commit(shelf):
    folder, asked = shelf
    table = pa.table({"prompt": ["1 + 1?", "NA"], "completion": ["2", "007"], "id": [1, 2]})
    parquet.write_table(table, folder / "train-00000-of-00001.parquet")
    found = rows.rows(GSM8K, "train", f"hub:me/set@{COMMIT}", 0, 0)
    assert found.layout == "completion"
    assert found.rows == [{"instruction": "1 + 1?", "output": "2"}, {"instruction": "NA", "output": "007"}]
    assert asked == [("me/set", None, COMMIT)]


def test_a_tasks_own_place_goes_through_its_convert(shelf):
    folder, asked = shelf
    own = folder.parents[1] / "openai" / "gsm8k" / "main"
    own.mkdir(parents=True)
    (own / "train.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "2"}) + "\n")
    (own.parent / "README.md").write_text("---\nconfigs:\n- config_name: main\n  data_files: main/train.jsonl\n---\n")
    found = rows.rows(GSM8K, "train", "hub", 0, 0)
    assert (found.layout, found.rows) == ("task", [{"instruction": "1 + 1?", "output": "2"}])
    assert asked == [("openai/gsm8k", "main", COMMIT)]


def test_conversations_on_the_hub_are_read(shelf):
    folder, _ = shelf
    talk = {"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}]}
    (folder / "train.jsonl").write_text(json.dumps(talk) + "\n")
    found = rows.rows(GSM8K, "train", f"hub:me/set@{COMMIT}", 0, 0)
    assert (found.layout, found.conversations) == ("chat", 1)


def test_a_faulty_row_is_named_with_its_place(shelf):
    folder, _ = shelf
    parquet.write_table(pa.table({"prompt": ["1?", None], "completion": ["1", "2"]}), folder / "train.parquet")
    with pytest.raises(DataError) as error:
        rows.rows(GSM8K, "train", f"hub:me/set@{COMMIT}", 0, 0)
    assert str(error.value) == f"hub:me/set@{COMMIT}#train: row 2: prompt is NoneType, not text"


def test_what_cannot_be_read_is_one_line_with_a_cure(shelf):
    folder, _ = shelf
    parquet.write_table(pa.table({"prompt": ["1?"], "completion": ["1"]}), folder / "train.parquet")
    for data, said in (
        (f"hub:me/set@{COMMIT}#validation", "validation"),
        (f"hub:me/set:nope@{COMMIT}", "nope"),
        (f"hub:me/nothing@{COMMIT}", "nothing"),
    ):
        with pytest.raises(DataError) as error:
            rows.rows(GSM8K, "train", data, 0, 0)
        assert said in str(error.value)
        assert "\n" not in str(error.value)
        assert error.value.hint


def test_another_version_than_the_commit_is_refused(shelf):
    folder, _ = shelf
    parquet.write_table(pa.table({"prompt": ["1?"], "completion": ["1"]}), folder / "train.parquet")
    with pytest.raises(DataError, match=f"cannot be read: the cache has {COMMIT} instead"):
        rows.rows(GSM8K, "train", f"hub:me/set@{OTHER}", 0, 0)


def test_a_folder_of_the_name_of_a_data_set_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "me" / "set").mkdir(parents=True)
    (tmp_path / "me" / "set" / "train.jsonl").write_text('{"prompt": "1?", "completion": "1"}\n')
    with pytest.raises(DataError, match="a folder me/set here is in the way"):
        rows.rows(GSM8K, "train", f"hub:me/set@{COMMIT}", 0, 0)


def test_without_a_network_it_is_told_in_one_line(python, tmp_path):
    code = f"""
from llmad import rows
from llmad.errors import DataError
from llmad.registry import registry
try:
    rows.rows(registry().task("gsm8k"), "test", "hub:me/set@{COMMIT}", 0, 0)
except DataError as error:
    print(error, "|", error.hint)
"""
    told = python(code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert told.startswith(f"hub:me/set@{COMMIT}#test cannot be read: ")
    assert told.strip().endswith("| HF_HUB_OFFLINE is set, and it was not downloaded before")
    assert told.count("\n") == 1


def test_local_files_need_no_datasets(python, tmp_path):
    parquet.write_table(pa.table({"prompt": ["1?"], "completion": ["1"]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("prompt,completion\n1?,1\n")
    code = """
import sys
from pathlib import Path
from llmad import rows
print([len(rows.read(Path(path), "train").rows) for path in sys.argv[1:]], "datasets" in sys.modules)
"""
    assert python(code, str(tmp_path / "a.parquet"), str(tmp_path / "a.csv")).strip() == "[1, 1] False"
