"""`llmad evaluate`: tables for people, JSON for machines, and what is refused."""

import json
import shutil

import pytest

ROW = {"instruction": "1 + 1?", "answer": "2"}


@pytest.fixture
def run(trained, place):
    """A copy of a run that may be written."""
    shutil.copytree(trained, place / "run")
    return "run"


def test_a_table_for_people(llmad, run):
    done = llmad("evaluate", run, "--limit", 2)
    assert done.code == 0, done.err
    table = [line.split("\t")[:3] for line in done.out.splitlines()[:2]]
    assert table == [["base", "arithmetic", "2"], ["run", "arithmetic", "2"]]
    assert "run: arithmetic: " in done.err


def test_json_for_machines_and_nothing_else(llmad, run, folder):
    done = llmad("evaluate", run, "--limit", 2, "--json", "--protocol", "paper")
    found = json.loads(done.out)
    assert (found["adapter"], found["backbone"], found["protocol"]) == ("run", folder, "paper")
    row, base = found["results"]
    assert (row["adapter"], base["adapter"], row["n"], base["n"]) == ("run", "base", 2, 2)
    assert row.keys() >= {"task", "correct", "accuracy", "interval", "majority", "unparsed", "seconds", "hashes"}
    assert row["hashes"] == {**base["hashes"], "adapter": row["hashes"]["adapter"]}


def test_several_adapters_tasks_and_a_folder_of_data(llmad, run, place):
    shutil.copytree(place / "run", place / "other")
    for name in ("SVAMP", "AddSub"):
        (place / "data" / name).mkdir(parents=True)
        (place / "data" / name / "test.json").write_text(json.dumps([ROW] * 3))
    words = ("--task", "svamp, addsub", "--data", "data", "--limit", 1, "--output", "out", "--json")
    done = llmad("evaluate", "run", "other", *words)
    assert done.code == 0, done.err
    pairs = [(row["adapter"], row["task"], row["n"]) for row in json.loads(done.out)["results"]]
    whos = ("run", "other", "base")
    assert pairs == [(who, task, 1) for who in whos for task in ("svamp", "addsub")]
    assert len(list((place / "out").rglob("*.jsonl"))) == 8  # the base's answers lie beside each adapter's


def test_a_folder_that_is_no_adapter_is_refused(refused, place):
    (place / "empty").mkdir()
    assert "empty is no adapter directory" in refused(4, "evaluate", "empty")
    assert "missing is no adapter directory" in refused(4, "evaluate", "missing")


@pytest.mark.parametrize("content", [b"", b"{", b"\x08\0\0\0\0\0\0\0{}      junk"])
def test_broken_weights_are_refused(refused, run, place, content):
    (place / "run" / "adapter" / "adapter_model.safetensors").write_bytes(content)
    assert "adapter_model.safetensors" in refused(4, "evaluate", run, "--limit", 1)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}'])
def test_a_broken_record_is_refused(refused, run, place, content):
    (place / "run" / "adapter" / "llmad.json").write_text(content)
    assert "llmad.json" in refused(4, "evaluate", run, "--limit", 1)


USAGE = {
    "task": (["--task", "arithmetic,svmp"], "did you mean svamp"),
    "protocol": (["--protocol", "papre"], "did you mean paper"),
    "limit": (["--limit", "0"], "--limit"),
    "number": (["--limit", "many"], "--limit"),
    "backbone": (["--backbone", "lama-7b"], "did you mean llama-7b"),
    "shape": (["--backbone", "llama-7b"], "known by its shape only"),
}


@pytest.mark.parametrize(("words", "said"), USAGE.values(), ids=USAGE.keys())
def test_what_cannot_be_meant_is_refused(refused, run, words, said):
    assert said in refused(2, "evaluate", run, *words)


def test_an_adapter_must_be_named(refused):
    assert "DIR" in refused(2, "evaluate")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "holds no rows"),
        (json.dumps([ROW, {"instruction": "1?"}]), "row 2 has no field 'answer'"),
        (json.dumps([ROW, {**ROW, "answer": "two"}]), "row 2: "),
    ],
)
def test_data_that_cannot_be_used_is_refused(refused, run, place, content, said):
    (place / "rows.json").write_text(content)
    assert said in refused(3, "evaluate", run, "--data", "rows.json")


def test_data_that_is_missing_is_refused(refused, run):
    assert "missing.json" in refused(3, "evaluate", run, "--data", "missing.json")
    assert "come from a file" in refused(3, "evaluate", run, "--task", "svamp")


def test_an_output_that_cannot_be_written_is_refused(refused, run, place):
    (place / "file").touch()
    assert "file is in the way" in refused(6, "evaluate", run, "--limit", 1, "--output", "file/out")


def test_another_base_is_refused(refused, run, folder, place):
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, place / "other")
    tensors = load_file(place / "other" / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, place / "other" / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    assert "the weights differ" in refused(4, "evaluate", run, "--backbone", "other", "--limit", 1)
