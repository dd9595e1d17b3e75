"""`llmad list-adapters`, `list-backbones`, `list-quantizers`, `list-tasks`, `plugins`."""

import json

import pytest

from llmad.registry import Offer, Plugin, registry

COMMANDS = ["list-adapters", "list-backbones", "list-quantizers", "list-tasks", "plugins"]


@pytest.mark.parametrize("command", COMMANDS)
def test_json_and_lines_name_the_same_things(llmad, command):
    found = json.loads(llmad(command, "--json").out)
    lines = llmad(command).out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [row["name"] for row in found]
    assert llmad(command).err == ""


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("list-adapters", "lora"),
        ("list-backbones", "llama"),
        ("list-quantizers", "nf4"),
        ("list-tasks", "svamp"),
        ("plugins", "bitsandbytes"),
    ],
)
def test_the_built_ins_are_there(llmad, command, name):
    assert name in [row["name"] for row in json.loads(llmad(command, "--json").out)]


@pytest.fixture
def broken(monkeypatch):
    """A plugin that is broken, with a name and an error that would like to be obeyed."""
    plugin = Plugin("[bold]x[/bold]", "stranger", "1.0", "v1", "broken", "ImportError: \x1b[31mno module")
    monkeypatch.setattr(registry(), "plugins", [*registry().plugins, plugin])
    return plugin


def test_a_broken_plugin_is_told_in_one_line_and_stops_nothing(llmad, broken):
    done = llmad("list-adapters", "--json")
    assert done.code == 0
    assert json.loads(done.out)
    said = "warning: plugin [bold]x[/bold] of stranger 1.0 is broken: ImportError: \\x1b[31mno module\n"
    assert done.err == said


def test_a_broken_plugin_is_listed_as_it_is_and_obeyed_by_nobody(llmad, broken):
    line = llmad("plugins").out.splitlines()[-1]
    assert line.startswith("[bold]x[/bold]\tstranger\t1.0\t")
    assert line.endswith("broken\tImportError: \\x1b[31mno module")
    assert json.loads(llmad("plugins", "--json").out)[-1]["error"] == broken.error


def test_a_name_taken_twice_is_listed_in_full(llmad, monkeypatch):
    twice = [Plugin("p", dist, "1", "v1", offers=[Offer("task", "mine", registry().task("svamp"), dist, "1")])
             for dist in "ab"]  # fmt: skip
    monkeypatch.setattr(registry(), "plugins", [*registry().plugins, *twice])
    rows = {row["name"]: row["status"] for row in json.loads(llmad("list-tasks", "--json").out)}
    assert rows["a:mine"] == rows["b:mine"] == "conflict"
    assert rows["svamp"] == "ok"


@pytest.mark.usefixtures("fresh_registry")
@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_plugin_on_the_allow_list_is_refused(refused, monkeypatch, command):
    monkeypatch.setenv("LLMAD_PLUGINS", "nope")
    assert "LLMAD_PLUGINS names 'nope', which is not installed" in refused(2, command)
