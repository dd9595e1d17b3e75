"""What the conversions of data sets share."""

from llmad_plugins.tasks.layouts import first_of, has_texts


def test_the_first_layout_that_fits_makes_the_row():
    convert = first_of(lambda entry: None, lambda entry: {"answer": entry["b"]}, lambda entry: {"answer": "late"})
    assert convert({"b": "1"}) == {"answer": "1"}
    assert first_of(lambda entry: None)({}) is None


def test_texts_are_there_and_are_text():
    assert has_texts({"a": "", "b": "x"}, "a", "b")
    assert not has_texts({"a": 1}, "a")
    assert not has_texts({}, "a")
