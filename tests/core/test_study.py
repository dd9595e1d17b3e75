"""What a comparison is told: every fault at once, and each beside a twin that is read."""

import json

import pytest

from llmad import study
from llmad.errors import DataError, ResumeError, UsageError

GOOD = {"backbone": "abacus", "task": "arithmetic", "adapters": ["lora", "series"]}


def load(**values):
    return study.load([("test", {**GOOD, **values})])


def test_a_list_of_specs_is_named_by_them(tmp_path):
    found = load(adapters=["lora", "lora[r=16,sites=attn.q+attn.v]", "lora-paper", {"name": "series", "bottleneck": 8}])
    assert found.adapters == {
        "lora": "lora",
        "lora-r-16-sites-attn-q-attn-v": "lora[r=16,sites=attn.q+attn.v]",
        "lora-paper": "lora-paper",
        "series-bottleneck-8": "series[bottleneck=8]",
    }
    assert found.seeds == (0,)


def test_a_table_has_names_of_its_own(tmp_path):
    found = load(adapters={"small": "lora[r=2]", "big": {"name": "lora", "r": 16}}, seeds=[3, 1])
    runs = found.entrants(tmp_path)
    assert [run.name for run in runs] == ["small-seed3", "small-seed1", "big-seed3", "big-seed1"]
    assert [run.recipe.adapter for run in runs] == ["lora[r=2]", "lora[r=2]", "lora[r=16]", "lora[r=16]"]
    assert [run.recipe.seed for run in runs] == [3, 1, 3, 1]
    assert runs[2].run.path == tmp_path / "big-seed3"


def test_one_seed_may_be_given_as_in_a_recipe():
    assert load(seed=4).seeds == (4,)


def test_a_later_layer_wins():
    found = study.load([("file", {**GOOD, "max_steps": 3}), ("--set", {"max_steps": 5, "seeds": [1]})])
    assert (found.recipe.max_steps, found.seeds) == (5, (1,))


LONG = f"lora[layers={'+'.join(map(str, range(40)))}]"
FAULTS = {
    # what is said, what is wrong, and its twin
    "no adapters": ("adapters: give a list", {"adapters": None}, {"adapters": ["lora"]}),
    "an empty list": ("adapters: give a list", {"adapters": []}, {"adapters": ["ia3"]}),
    "an empty table": ("adapters: give a list", {"adapters": {}}, {"adapters": {"a": "lora"}}),
    "a text": ("not 'lora'", {"adapters": "lora"}, {"adapters": ["lora"]}),
    "an unknown method": ("there is no adapter 'lroa'", {"adapters": ["lroa"]}, {"adapters": ["lora"]}),
    "a bad option": ("no option 'rr'", {"adapters": ["lora[rr=1]"]}, {"adapters": ["lora[r=1]"]}),
    "no spec": ("a: 8 is no spec", {"adapters": {"a": 8}}, {"adapters": {"a": "lora[r=8]"}}),
    "a name twice": ("lora is there twice", {"adapters": ["lora", "lora"]}, {"adapters": {"a": "lora", "b": "lora"}}),
    "a bad name": ("'../a' cannot name", {"adapters": {"../a": "lora"}}, {"adapters": {"a": "lora"}}),
    "the base's name": ("'base' is what the table", {"adapters": {"base": "ia3"}}, {"adapters": {"bases": "ia3"}}),
    "a long name": ("cannot name an adapter", {"adapters": [LONG]}, {"adapters": {"long": LONG}}),
    "one on others": ("acts through other adapters", {"adapters": ["fusion[adapters=a+b]"]}, {"adapters": ["lora"]}),
    "one adapter": ("write adapters", {"adapter": "lora"}, {}),
    "a seed too": ("seed: it stands beside seeds", {"seed": 1, "seeds": [1]}, {"seeds": [1]}),
    "no seeds": ("seeds: give a list", {"seeds": []}, {"seeds": [0]}),
    "a truth": ("True is no whole number", {"seeds": [True]}, {"seeds": [1]}),
    "below zero": ("-1 is no whole number", {"seeds": [-1]}, {"seeds": [0]}),
    "too high": ("is no whole number", {"seeds": [1 << 63]}, {"seeds": [(1 << 63) - 1]}),
    "a seed twice": ("1 is there twice", {"seeds": [1, 2, 1]}, {"seeds": [1, 2]}),
    "an unknown key": ("there is no key 'adaptrs'", {"adaptrs": ["lora"]}, {}),
    "a bad value": ("max_steps", {"max_steps": 0}, {"max_steps": 1}),
    "below": ("frozen: the adapters of a study stand", {"frozen": {"a": "."}}, {"frozen": {}}),
    "no scores": ("do_eval: a study always scores", {"do_eval": False}, {"do_eval": True}),
    "an unknown task": ("aritmetic", {"task": "aritmetic"}, {}),
}


@pytest.mark.parametrize(("said", "bad", "good"), FAULTS.values(), ids=FAULTS.keys())
def test_what_cannot_be_meant_is_refused_and_its_twin_read(said, bad, good):
    with pytest.raises(UsageError) as error:
        load(**bad)
    assert said in str(error.value)
    load(**good)


def test_every_fault_is_told_at_once():
    with pytest.raises(UsageError) as error:
        load(adapters=["lroa", "lora[rr=1]"], seeds=[-1], task="aritmetic", sed=1, max_steps=0, adapter="lora")
    for part in ("'lroa'", "'rr'", "-1", "aritmetic", "'sed'", "max_steps: ", "write adapters"):
        assert part in str(error.value)
    assert error.value.exit_code == 2


def test_data_that_is_missing_is_a_fault_of_the_data(tmp_path):
    with pytest.raises(DataError):
        load(data=str(tmp_path / "none.json"))


def test_a_study_is_the_same_wherever_it_goes(tmp_path):
    one, other = load(output_dir=str(tmp_path / "a")), load(output_dir=str(tmp_path / "b"), seeds=[0], do_eval=True)
    assert one.describe() == other.describe()
    (tmp_path / study.FILE).write_text(json.dumps(one.describe()))
    other.check_same(tmp_path)


def test_another_study_is_refused_with_every_difference(tmp_path):
    (tmp_path / study.FILE).write_text(json.dumps(load().describe()))
    with pytest.raises(ResumeError) as error:
        load(seeds=[1], max_steps=7).check_same(tmp_path)
    assert "seeds: [0] then, [1] now" in str(error.value)
    assert "max_steps: None then, 7 now" in str(error.value)
    assert "adapters" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_study_that_cannot_be_read_is_not_gone_on_with(tmp_path, content):
    (tmp_path / study.FILE).write_text(content)
    with pytest.raises(ResumeError, match="no study can be read"):
        load().check_same(tmp_path)


def test_a_place_is_free_or_holds_a_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taken = tmp_path / "taken"
    taken.mkdir()
    assert load(output_dir=str(taken)).place() == taken
    (taken / "file").touch()
    with pytest.raises(UsageError, match="holds no study"):
        load(output_dir=str(taken)).place()
    (taken / study.FILE).touch()
    assert load(output_dir=str(taken)).place() == taken
    assert load().place().as_posix() == "runs/abacus-compare-arithmetic"


def test_no_torch_is_imported(python):
    code = "import sys; from llmad import study, comparison, significance; print('torch' in sys.modules)"
    assert python(code).strip() == "False"
