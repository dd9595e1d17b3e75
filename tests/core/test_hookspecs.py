import inspect

import pytest

from llmad import hookspecs
from llmad.listing import list_plugins
from llmad.registry import _HOOKS

SPECS = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, "llmad_spec")}


def test_every_hook_is_read_by_the_registry():
    assert SPECS.keys() == _HOOKS.keys()


@pytest.mark.parametrize("name", SPECS)
def test_a_hook_is_documented_and_takes_nothing(name):
    assert inspect.getdoc(SPECS[name])
    assert not inspect.signature(SPECS[name]).parameters
    assert SPECS[name]() == []


def test_every_hook_is_used_by_a_plugin_that_ships():
    offered = {offer.split()[0] for row in list_plugins() if row["distribution"] == "llmad" for offer in row["offers"]}
    assert offered == {kind for kind, _, _ in _HOOKS.values()}


def test_the_group_names_the_generation_of_the_api():
    assert hookspecs.GROUP == "llmad.v1"
