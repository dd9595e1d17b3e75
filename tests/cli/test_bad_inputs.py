"""Bad inputs to the command line, each a change away from one that is taken: a line, a hint, a code, and no run."""

import json
import os

import pytest

from llmad.registry import registry

QUICK = ("--set", "per_device_train_batch_size=2", "--dry-run")
SEED = "99999999999999999999"


@pytest.fixture
def rows(place):
    """Rows in a file; `rows(name)` writes them there, `rows(name, content)` something else."""

    def rows(name="rows.json", content=None):
        made = registry().task("arithmetic").rows("train", 4, 0)
        lines = "\n".join(map(json.dumps, made)) if name.endswith("l") else json.dumps(made)
        data = lines if content is None else content
        (place / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return name

    return rows


def train(folder, *words):
    return ("train", "--backbone", folder, "--task", "arithmetic", *QUICK, *words)


@pytest.mark.parametrize(
    "name", ["rows.json", "d[v2].jsonl", "-x.json", "a b\nc.json", "ü漢\u202e.json", "[red].json", "ñ.jsonl"]
)
def test_odd_names_are_names(llmad, folder, rows, place, name):
    for path in (rows(name), f"./{name}", place / name):
        done = llmad(*train(folder, "--data", path))
        assert done.code == 0, done.err
    assert "\u202e" not in done.out


@pytest.mark.parametrize(("name", "content"), [
    ("empty.json", ""), ("empty.jsonl", ""), ("noise.json", b"\x93\0\xff"), ("noise.jsonl", b"\x93\0\xff"),
    ("deep.json", "[" * 100_000), ("numbers.json", '[{"instruction": 1, "output": 2}]'), ("none", "[]"),
    ("half.jsonl", '{"instruction": "\\ud800", "output": "a"}'), ("twice.jsonl", '{"a": 1, "a": 1}'),
    ("rows.pkl", b"\x80\x04cos\nsystem\n"),
])  # fmt: skip
def test_files_that_hold_no_rows(refused, folder, rows, name, content):
    assert name in refused(3, *train(folder, "--data", rows(name, content)))


@pytest.mark.parametrize("name", ["nope.json", "", "\0", "a" * 5000, "~nobody/x.json", "/dev/null", "rows.json/x",
                                  "http://owner/rows.json", "folder", "."])  # fmt: skip
def test_paths_that_lead_to_no_rows(refused, folder, rows, place, name):
    rows()
    (place / "folder").mkdir()
    refused(3, *train(folder, "--data", name))


@pytest.mark.parametrize(("name", "content"), [
    ("r.yaml", "learning_rate: 1e-4"), ("r.yaml", "learning_rate: '1e-4'"), ("r.yaml", "max_steps: 0012"),
    ("r.yaml", "do_eval: no"), ("r.json", '{"seed": 1}'), ("r.toml", "seed = 1"), ("a b[1].yaml", "seed: 1"),
    ("r.yaml", "\ufeffseed: 1"), ("r.toml", ""), ("r.yaml", "learning_rate: null"),
])  # fmt: skip
def test_recipes_that_are_read(llmad, folder, rows, name, content):
    done = llmad(*train(folder, rows(name, content), "--data", rows()))
    assert done.code == 0, done.err


@pytest.mark.parametrize(("name", "content", "words"), [
    ("r.yaml", "seed: 1\nseed: 1", "'seed' is there twice"),
    ("r.json", '{"seed": 1, "seed": 1}', "'seed' is there twice"),
    ("r.toml", "seed = 1\nseed = 1", "overwrite"), ("r.yaml", "seed: &a 1\nmax_steps: *a", "alias *a"),
    ("r.yaml", "a: &a [x,x]\nb: &b [*a,*a]", "alias *a"), ("r.yaml", "seed: !!python/name:os.system", "python/name"),
    ("r.yaml", "seed: {a: 1}", "seed: "), ("r.yaml", "adapter: {name: lora, r: {a: 1}}", "lora: r: "),
    ("r.yaml", "adapter: {r: 1}", "adapter: "), ("r.yaml", "adapter: {name: [lora]}", "no adapter spec"),
    ("r.yaml", "- seed", "a table of keys"), ("r.yaml", "", "a table of keys"), ("r.yaml", "1: 2", "no key 1"),
    ("r.yaml", "~: 2", "no key None"), ("r.yaml", "? [a]\n: 2", "unhashable"),
    ("r.yaml", "lerning_rate: 1", "lerning_rate"),
    ("r.yaml", "max_steps: 10k", "max_steps"), ("r.yaml", "max_length: 512 tokens", "max_length"),
    ("r.yaml", "max_steps: 1.5", "max_steps"), ("r.yaml", "max_steps: -1", "max_steps"),
    ("r.yaml", "seed: true", "seed"),
    ("r.yaml", "warmup_ratio: false", "warmup_ratio"), ("r.yaml", "do_eval: maybe", "do_eval"),
    ("r.yaml", "learning_rate: .inf", "learning_rate"), ("r.yaml", "learning_rate: .nan", "learning_rate"),
    ("r.yaml", "learning_rate: -1", "learning_rate"), ("r.yaml", "warmup_ratio: 3%", "warmup_ratio"),
    ("r.yaml", f"seed: {SEED}", "seed"), ("r.yaml", "output_dir: 5", "output_dir"), ("r.yaml", "frozen: [x]", "frozen"),
    ("r.yaml", "frozen: {../x: y}", "frozen"), ("r.yaml", "device_map: [cpu]", "device_map"),
    ("r.yaml", "columns: {instruction: [1]}", "columns"), ("r.yaml", "a: 1\n---\nb: 2", "single document"),
    ("r.yaml", b"\xff\xfes\0e\0", "utf-8"), ("r.json", '{"learning_rate": NaN}', "NaN"),
    ("r.json", "[" * 9999, "levels"),
    ("r.toml", b"\xff\0", "utf-8"), ("r.toml", "seed = 2020-01-01", "seed"), ("r.txt", "seed: 1", "a recipe ends in"),
], ids=str)  # fmt: skip
def test_recipes_that_cannot_be_meant_so(refused, folder, rows, name, content, words):
    assert words in refused(2, *train(folder, rows(name, content)))


@pytest.mark.parametrize("name", ["", "nope", "nope.yaml", "\0.yaml", f"{'a' * 5000}.yaml", "folder.yaml", "/dev/null"])
def test_recipes_that_are_not_there(refused, folder, place, name):
    (place / "folder.yaml").mkdir()
    refused(2, *train(folder, name))


@pytest.mark.parametrize("pair", [
    "", "=", "seed", "=1", "seed=", "seed=x", "seed=[", "seed=*a", f"seed={SEED}", "learning_rate=1e-4x",
    "do_eval=maybe",
    "adapter=lora[r=", "adapter=lora[r=4]x", "adapter=lora[r=4,r=5]", "adapter=lora[sites=path:(]", "adapter=",
    "adapter=lora[layers=::0]", "adapter=lora[alpha=nan]", "adapter=lora[dropout=1]", "adapter=\x1b[31m",
    "task=arithmetic",
    "backbone=x", "quantize=int3", "dtype=float8", "device_map=cuda:99", "output_dir=\0", "frozen=x",
    "offload_folder=x",
])  # fmt: skip
def test_settings_that_cannot_be_meant_so(refused, folder, pair):
    assert "\x1b" not in refused(2, *train(folder, "--set", pair))


def test_a_setting_that_is_given_twice_is_no_setting(refused, llmad, folder):
    assert "given twice" in refused(2, *train(folder, "--set", "seed=1", "--set", "seed=1"))
    assert llmad(*train(folder, "--set", "seed=1")).code == 0


@pytest.mark.parametrize(("size", "code"), [(1 << 40, 8), (1 << 60, 4), (10**30, 4)])
def test_an_adapter_that_no_memory_holds(refused, folder, size, code):
    refused(code, *train(folder, "--set", f"adapter=lora[r={size}]"))


@pytest.mark.parametrize("name", ["", "nope", "rows.json", "/dev/null", "\0", "a" * 5000, "folder"])
def test_directories_that_are_no_adapter(refused, rows, place, name):
    rows()
    (place / "folder").mkdir()
    refused(4, "evaluate", name)
    refused(4, "chat", name)
    refused(4, "merge", name, "--output", "out")


@pytest.mark.parametrize("name", ["", "nope", "rows.json", "\0", "a" * 5000, "folder", "a/b/c", "../x"])
def test_backbones_that_are_none(refused, rows, place, name):
    rows()
    (place / "folder").mkdir()
    refused(2, "inspect", name)


@pytest.mark.parametrize("pair", ["limit=5 rows", "limit=true", "seed=-1", f"seed={SEED}", "task=[1]", "x=1", "dtype=5",
                                  "batch_size=0", "batch_size=true", "stop=maybe"])  # fmt: skip
def test_exams_that_cannot_be_meant_so(refused, pair):
    refused(2, "evaluate", "nope", "--set", pair)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_what_may_not_be_read_or_written(refused, folder, rows, place):
    (place / rows()).chmod(0)
    refused(3, *train(folder, "--data", "rows.json"))
    (place / "closed").mkdir(mode=0o500)
    refused(6, *train(folder, "--output", "closed/run"))
