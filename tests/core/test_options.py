"""The text form `name[option=value,...]`, whatever is named."""

import pytest

from llmad.errors import UsageError
from llmad.options import Options, split


class Cheese(Options):
    """A cheese.

    With holes.
    """

    name = "cheese"
    holes: int = 3
    grated: bool = False


def test_a_spec_is_split_into_name_and_options():
    text = "lora[ r = 16, sites=attn.q+attn.v ,layers=-4:]"
    assert split(text, "adapter spec") == ("lora", {"r": "16", "sites": "attn.q+attn.v", "layers": "-4:"})


def test_a_comma_inside_brackets_belongs_to_the_value():
    assert split("lora[sites=path:a{1,2}(b|c),r=2]", "adapter spec")[1] == {"sites": "path:a{1,2}(b|c)", "r": "2"}


@pytest.mark.parametrize("text", ["", "[r=1]", "lora[r=1", "lora[r]", "lora[=1]", "lora[r=]", "lora[r=1,r=2]", "lo ra"])
def test_a_text_of_another_form_is_refused(text):
    with pytest.raises(UsageError) as caught:
        split(text, "adapter spec")
    assert caught.value.code == "bad-spec"


def test_the_error_says_what_it_was_meant_to_be():
    with pytest.raises(UsageError, match="'a b' is no quantizer"):
        split("a b", "quantizer")


def test_the_text_leaves_out_defaults_and_the_full_text_does_not():
    assert str(Cheese()) == "cheese"
    assert str(Cheese(grated=True)) == "cheese[grated=true]"
    assert Cheese().in_full() == "cheese[holes=3,grated=false]"


@pytest.mark.parametrize("cheese", [Cheese(), Cheese(holes=0), Cheese(holes=2, grated=True)])
def test_both_texts_read_back(cheese):
    for text in (str(cheese), cheese.in_full()):
        assert Cheese.read(split(text, "cheese")[1]) == cheese


def test_wrong_options_are_told_in_one_line():
    with pytest.raises(UsageError, match=r"cheese: holes: .*; no option 'hols'") as caught:
        Cheese.read({"holes": "many", "hols": 1})
    assert caught.value.hint.startswith("did you mean holes?")
