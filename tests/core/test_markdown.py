"""Text from outside in Markdown."""

import pytest

from llmad.markdown import code, plain


@pytest.mark.parametrize(("text", "shown"), [
    ("attn.q x 8", "attn.q x 8"), (0.5, "0.5"), ("two\nlines", "two lines"), ("a|b", "a&#124;b"),
    ("<script>", "&#60;script&#62;"), ("[a](b)", "&#91;a&#93;(b)"), ("`a`", "&#96;a&#96;"), ("&lt;", "&#38;lt;"),
    ("\x1b[31m", "&#92;u001b&#91;31m"), ("\u202eexe", "&#92;u202eexe"), ("\ud800", "&#92;ud800"), ("a\u2028b", "a b"),
    ("ä漢", "ä漢"),
])  # fmt: skip
def test_text_reads_as_it_is(text, shown):
    assert plain(text) == shown


@pytest.mark.parametrize(("text", "shown"), [
    ("lora[r=8]", "`lora[r=8]`"), ("a`b", "``a`b``"), ("`a``b`", "``` `a``b` ```"), ("two\n\nlines", "`two lines`"),
    ("<b>|", "`<b>|`"), ("", "`  `"), ("\u202e", "`\\u202e`"),
])  # fmt: skip
def test_code_cannot_be_left(text, shown):
    assert code(text) == shown
