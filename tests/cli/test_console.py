"""What is printed, and how."""

import io
import json

import pytest
from rich.console import Console

from llmad_cli import console

ROWS = [{"name": "[red]a[/red]", "list": ["x", "y"], "text": "two\nlines\tand \x1b[31m"}]
COLUMNS = {"name": "Name", "list": "List", "text": "Text"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [("[bold]x", "[bold]x"), ("\x1b[31m", "\\x1b[31m"), ("\x9b", "\\x9b"), ("\r\0\x7f", "\\x0d\\x00\\x7f"),
     ("\u202eexe", "\\u202eexe"), ("a\u2066b\ufeff\U000e0041", "a\\u2066b\\ufeff\\U000e0041"), ("\u200d", "\u200d"),
     ("a\n\tb", "a\n\tb"), ("ä 漢", "ä 漢"), (5, "5")],
)  # fmt: skip
def test_control_characters_are_shown(text, shown):
    assert console.inert(text) == shown


def test_rows_are_lines_with_tabs_where_no_terminal_reads_them(capsys):
    console.print_rows(ROWS, COLUMNS)
    assert capsys.readouterr().out == "[red]a[/red]\tx, y\ttwo lines and \\x1b[31m\n"


def test_rows_are_a_table_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, color_system=None, markup=False, width=80)
    monkeypatch.setattr(console, "out", terminal)
    console.print_rows(ROWS, COLUMNS)
    shown = stream.getvalue()
    assert "Name" in shown
    assert "[red]a[/red]" in shown
    assert "\x1b[31m" not in shown


def test_json_is_all_that_goes_to_the_output(capsys):
    console.print_json({"name": "[red]ä"})
    assert capsys.readouterr() == ('{\n  "name": "[red]ä"\n}\n', "")


def test_json_shows_what_is_hidden_and_means_the_same(capsys):
    content = {"name\x9b": "\u202eexe\U000e0041\ufeff"}
    console.print_json(content)
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert json.loads(shown) == content


def test_complaints_and_warnings_go_to_the_error_stream_unwrapped(capsys):
    console.complain("x " * 100, "y " * 100, "code")
    console.warn("z " * 100)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line[:7] for line in err.splitlines()] == ["error: ", "hint: y", "warning"]
