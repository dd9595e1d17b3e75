"""YAML as people mean it."""

import pytest
import yaml

from llmad import strict_yaml


@pytest.mark.parametrize(("text", "content"), [
    ("1e-4", 1e-4), ("1.5E3", 1500.0), ("-.5", -0.5), ("3", 3), ("1_000", 1000), ("-0", 0), (".inf", float("inf")),
    ("true", True), ("False", False), ("", None), ("~", None), ("null", None), ("a:", {"a": None}),
    ("yes", "yes"), ("off", "off"), ("010", "010"), ("0512", "0512"), ("1:30", "1:30"), ("2026-01-01", "2026-01-01"),
    ("0x1F", "0x1F"), ("1e", "1e"), ("lora[r=8]", "lora[r=8]"), ("'3'", "3"),
    ("{a: 1, b: [x, 2]}", {"a": 1, "b": ["x", 2]}),
    ("a: &x 1\nb: 2", {"a": 1, "b": 2}), ("{<<: {a: 1}, a: 2}", {"<<": {"a": 1}, "a": 2}),
])  # fmt: skip
def test_plain_values_are_what_they_look_like(text, content):
    found = strict_yaml.parse(text)
    assert found == content
    assert type(found) is type(content)


@pytest.mark.parametrize(("text", "words"), [
    ("a: 1\na: 2", "'a' is there twice"), ("{a: 1, a: 1}", "'a' is there twice"),
    ("b: {a: 1, a: 2}", "'a' is there twice"),
    ("1: a\n1: b", "1 is there twice"), ("a: &x [1]\nb: *x", r"alias \*x"), ("a: &a [*a]", r"alias \*a"),
    ("!!python/object/apply:os.system ['true']", "constructor"), ("a: [", "expected"),
    ("? [1]\n: 2", "unhashable"), ("a: 1\n--- \nb: 2", "single document"), ("a\x00", "special characters"),
])  # fmt: skip
def test_what_can_be_meant_in_two_ways_is_refused(text, words):
    with pytest.raises(yaml.YAMLError, match=words):
        strict_yaml.parse(text)


@pytest.mark.parametrize("text", ["[" * 5000, "9" * 5000])
def test_what_is_too_much_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"levels|digits"):
        strict_yaml.parse(text)
