"""Recipes: put together from layers, every fault told at once, before anything heavy is imported."""

import pytest

from llmad import recipe
from llmad.errors import DataError, LlmadError, UsageError
from llmad.recipe import Recipe

GOOD = {"backbone": "llama-7b", "adapter": "lora", "task": "arithmetic"}


def load(*layers):
    return recipe.load([("base", GOOD), *((f"layer {place}", layer) for place, layer in enumerate(layers, 1))])


def fault(*layers):
    with pytest.raises(LlmadError) as error:
        load(*layers)
    return error.value


def test_later_layers_win():
    assert load({"seed": 1, "max_steps": 3}, {"seed": 2}) == Recipe(**GOOD, seed=2, max_steps=3)


def test_a_recipe_that_was_written_is_read_back():
    made = load({"learning_rate": 1e-3})
    assert recipe.load([("file", made.model_dump(mode="json"))]) == made


def test_an_adapter_may_be_a_table():
    made = load({"adapter": {"name": "lora", "r": 4, "sites": ["attn.q", "attn.v"]}})
    assert made.adapter == "lora[r=4,sites=attn.q+attn.v]"


@pytest.mark.parametrize(("value", "wanted"), [
    (None, None), ("none", None), ("nf4", "nf4"), ("nf4[double_quant=false]", "nf4[double_quant=false]"),
    ({"name": "nf4", "double_quant": False}, "nf4[double_quant=False]"),
])  # fmt: skip
def test_a_base_may_be_quantised(value, wanted):
    assert load({"quantize": value}).quantize == wanted


@pytest.mark.parametrize(
    ("value", "words"), [("nf", "there is no quantizer 'nf'"), ("int8[r=1]", "int8: no option 'r'")]
)
def test_a_wrong_quantizer_is_told(value, words):
    error = fault({"quantize": value})
    assert words in str(error)
    assert error.exit_code == 2


def test_an_unknown_key_is_told_with_its_layer_and_the_nearest():
    error = fault({}, {"learning_rat": 1})
    assert str(error) == "layer 2: there is no key 'learning_rat'"
    assert error.hint.startswith("did you mean learning_rate")
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("max_steps", 0),
        ("max_steps", 100_000_000),
        ("num_train_epochs", 0),
        ("num_train_epochs", 1e308),
        ("device_map", {}),
        ("output_dir", "run-\udcff"),
        ("max_steps", "many"),
        ("learning_rate", 0),
        ("learning_rate", float("inf")),
        ("warmup_ratio", 1),
        ("lr_scheduler_type", "step"),
        ("dtype", "int8"),
        ("per_device_train_batch_size", 1.5),
        ("task", 5),
    ],
)
def test_a_wrong_value_is_told_with_its_layer_and_key(key, value):
    error = fault({key: value})
    assert str(error).startswith(f"layer 1: {key}: ")
    assert str(error).endswith(f"not {value!r}")
    assert error.exit_code == 2


def test_a_missing_key_is_told_without_the_whole_recipe():
    with pytest.raises(UsageError) as error:
        recipe.load([("file", {"adapter": "lora", "task": "arithmetic"})])
    assert str(error.value) == "recipe: backbone: Field required"


@pytest.mark.parametrize(
    ("values", "said", "hint"),
    [
        ({"adapter": "lroa"}, "there is no adapter 'lroa'", "lora"),
        ({"adapter": "lora[rank=4]"}, "lora: no option 'rank'", ""),
        ({"adapter": "lora[sites=attn.qq]"}, "'attn.qq' is no role or group", ""),
        ({"adapter": "lora[layers=x]"}, "neither a layer number nor a slice", ""),
        ({"adapter": "lora["}, "is no adapter spec", ""),
        ({"task": "aritmetic"}, "there is no task 'aritmetic'", "arithmetic"),
        ({"backbone": "lama-7b"}, "there is no backbone 'lama-7b'", "llama-7b"),
        ({"backbone": "x" * 5000}, "there is no backbone", ""),
        ({"backbone": "~nobody-of-that-name/x"}, "there is no backbone", ""),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest(values, said, hint):
    error = fault(values)
    assert said in str(error)
    assert hint in error.hint
    assert error.exit_code == 2


@pytest.mark.parametrize("name", ["missing.json", "x" * 5000])
def test_data_that_is_missing_is_a_data_error_when_all_else_is_right(name):
    error = fault({"data": name})
    assert isinstance(error, DataError)
    assert str(error) == f"{name}: there is no such file or folder"


COMMIT = "0123456789" * 4


@pytest.mark.parametrize("data", ["hub", "hub#train", f"hub@{COMMIT}", f"hub:me/set:main@{COMMIT}#train"])
def test_data_may_be_on_the_hub(data):
    assert load({"data": data}).data == data


@pytest.mark.parametrize(
    ("data", "said"), [("hub:me/set", "names no commit"), ("hub:me/set@main", "may move"), ("hub:set", "is no place")]
)
def test_a_place_on_the_hub_that_is_not_pinned_is_told(data, said):
    error = fault({"data": data})
    assert said in str(error)
    assert error.exit_code == 2


@pytest.mark.parametrize("given", [{"instruction": "question", "output": "a=b"}, "instruction=question,output=a=b"])
def test_columns_may_be_a_table_or_text(given):
    made = load({"columns": given})
    assert made.columns == {"instruction": "question", "output": "a=b"}
    assert recipe.load([("file", made.model_dump(mode="json"))]) == made


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"instructions": "question"}, "there is no column 'instructions' to map; did you mean instruction"),
        ({"instruction": "x", "output": "x"}, "one column is given for two"),
        ({"messages": "x", "output": "y"}, "messages and output are of different layouts"),
        ("question", "is not WANTED=COLUMN"),
        (["question"], "dictionary"),
    ],
)
def test_columns_that_cannot_be_meant_are_told(given, said):
    error = fault({"columns": given})
    assert str(error).startswith("layer 1: columns: ")
    assert said in str(error)
    assert error.exit_code == 2


def test_every_fault_is_told_at_once():
    error = fault({"adapter": "lroa", "task": "aritmetic", "sed": 1, "max_steps": 0, "data": "missing.json"})
    lines = str(error).splitlines()
    assert len(lines) == 5
    assert "there is no adapter 'lroa' (did you mean lora" in str(error)
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'seed = 3\nadapter = "lora"'),
        ("a.yaml", "seed: 3\nadapter: lora"),
        ("a.yml", "{seed: 3, adapter: lora}"),
        ("a.json", '{"seed": 3, "adapter": "lora"}'),
    ],
)
def test_a_file_is_read_as_its_ending_says(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert recipe.read(tmp_path / name) == (str(tmp_path / name), {"seed": 3, "adapter": "lora"})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.ini", b"", "a recipe ends in .toml"),
        ("a.toml", b"seed = ", "a.toml: "),
        ("a.yaml", b"a: [", "a.yaml: while parsing"),
        ("a.yaml", b"- 1", "a recipe is a table"),
        ("a.json", b"{", "a.json: "),
        ("a.json", b"\xff", "a.json: "),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as error:
        recipe.read(tmp_path / name)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"a.toml: No such file"):
        recipe.read(tmp_path / "a.toml")


def test_pairs_are_read_as_scalars():
    origin, values = recipe.read_pairs(["seed=3", "do_eval=true", "learning_rate=1e-3", "adapter=lora[layers=8:]"])
    assert origin == "--set"
    assert values == {"seed": 3, "do_eval": True, "learning_rate": 0.001, "adapter": "lora[layers=8:]"}
    assert load(values).learning_rate == 1e-3


@pytest.mark.parametrize("pair", ["seed", "=3", "", "seed=[", "seed='"])
def test_a_pair_that_is_none_is_told_in_one_line(pair):
    with pytest.raises(UsageError) as error:
        recipe.read_pairs([pair])
    assert repr(pair) in str(error.value)
    assert "\n" not in str(error.value)


def test_no_torch_is_loaded(python):
    code = f"import sys; from llmad import recipe; recipe.load([('', {GOOD!r})]); print('torch' in sys.modules)"
    assert python(code).strip() == "False"


@pytest.mark.parametrize(("frozen", "told"), [
    ({"default": "x"}, "'default' cannot name"), ({"a.b": "x"}, "'a.b' cannot name"), ("x", "frozen"),
    ({"a": "nowhere"}, "frozen: a: nowhere is no adapter directory"),
])  # fmt: skip
def test_wrong_frozen_adapters_are_told_before_anything_is_loaded(frozen, told):
    with pytest.raises(LlmadError, match=told):
        recipe.load([("test", {"backbone": "abacus", "adapter": "lora", "task": "arithmetic", "frozen": frozen})])
