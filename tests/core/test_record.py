"""The record of an adapter directory: parsed, and never obeyed."""

import json

import pytest

import llmad
from llmad.errors import ModelError
from llmad.record import built_on, read_about

TWICE = '{"format": 1, "format": 1'
DEEP, LARGE = '{"a":' * 99 + "1" + "}" * 99, "{" + " " * (17 << 20) + "}"


@pytest.fixture
def adapter(llama, tmp_path):
    return llmad.save(llmad.attach(llama, "lora"), tmp_path / "a", about={"task": "arithmetic"})


def change(folder, **values):
    path = folder / "llmad.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("values", [
    {}, {"task": None}, {"checks": {}}, {"checks": {"leaks": [{"task": "a", "n": 1, "exact": 0, "masked": 0}]}},
    {"built_on": ["a-b_1"]}, {"plugin": None}, {"more": "is not read"}, {"recipe": {"dtype": "auto"}},
])  # fmt: skip
def test_what_can_be_right_is_read(adapter, values):
    change(adapter, **values)
    assert read_about(adapter).items() >= values.items()


@pytest.mark.parametrize("values", [
    {"built_on": ["../../x"]}, {"built_on": ["/etc"]}, {"built_on": [".."]}, {"built_on": ["a/b"]}, {"built_on": [""]},
    {"built_on": ["a\n"]}, {"built_on": "abc"}, {"built_on": [1]}, {"task": 5}, {"task": ["a"]}, {"backbone": {}},
    {"recipe": []}, {"recipe": "lora"}, {"prompt": "text"}, {"prompt_fingerprint": 1}, {"checks": []},
    {"checks": {"leaks": ["a"]}}, {"checks": {"leaks": [{"task": "a"}]}}, {"checks": {"leaks": 3}}, {"plugin": "x"},
    {"plugin": {"distribution": 1}}, {"sites": [1]}, {"base": []}, {"quantization": 4}, {"method": None},
    {"options": [["r", 8]]},
], ids=str)  # fmt: skip
def test_what_cannot_be_right_is_refused(adapter, values):
    change(adapter, **values)
    with pytest.raises(ModelError, match=next(iter(values))) as caught:
        read_about(adapter)
    assert caught.value.code == "broken-adapter"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["llmad.json", "adapter_config.json"])
@pytest.mark.parametrize("content", [TWICE + "}", '{"format": NaN}', DEEP, '"text"', LARGE],
                         ids=["twice", "nan", "deep", "text", "large"])  # fmt: skip
def test_json_that_is_none_is_refused(adapter, file, content):
    (adapter / file).write_text(content)
    with pytest.raises(ModelError, match=file) as caught:
        read_about(adapter)
    assert caught.value.code == "broken-adapter"


def test_an_adapter_below_another_lies_in_its_directory(adapter, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (adapter / "built_on").mkdir()
    (adapter / "built_on" / "b").symlink_to(tmp_path / "elsewhere")
    assert built_on(adapter, "c") == adapter / "built_on" / "c"
    for name in ("b", "..", "../.."):
        with pytest.raises(ModelError) as caught:
            built_on(adapter, name)
        assert caught.value.code == "link-outside"
