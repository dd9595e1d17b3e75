"""JSON as the standard has it."""

import pytest

from llmad import strict_json


@pytest.mark.parametrize(("text", "content"), [
    ('{"a": [1, 2.5, null, "\\ud83d\\ude00"]}', {"a": [1, 2.5, None, "😀"]}),
    (b'"\xc3\xa4"', "ä"),
    ("[" * 31 + "]" * 31, None),
    ('{"a": 1, "b": 1}', {"a": 1, "b": 1}),
    ("1e300", 1e300),
])  # fmt: skip
def test_what_is_json_is_read(text, content):
    found = strict_json.parse(text)
    assert content is None or found == content


@pytest.mark.parametrize(("text", "words"), [
    ('{"a": 1, "a": 1}', "'a' is there twice"),
    ('{"b": {"a": 1, "a": 2}}', "'a' is there twice"),
    ("[NaN]", "NaN is no JSON"),
    ("-Infinity", "-Infinity is no JSON"),
    ("1e999", "too large a number"),
    ("[" * 33 + "]" * 33, "more than 32 levels"),
    ("[" * 100_000, "more than 32 levels"),
    ('{"a":' * 40 + "1" + "}" * 40, "more than 32 levels"),
    (r'{"\ud800": 1}', "surrogates"),
    (r'["\udc00"]', "surrogates"),
    (b"\xff", "decode"),
    (b"", "Expecting value"),
    ("{} {}", "Extra data"),
    ("1" * 5000, "digits"),
])  # fmt: skip
def test_what_is_not_is_a_value_error(text, words):
    with pytest.raises(ValueError, match=words):
        strict_json.parse(text)
