"""The public API, and the house's rules that can be read off the code."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import llmad

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "core" / "llmad").glob("**/*.py"))
PLUGINS = sorted((ROOT / "plugins" / "llmad_plugins").glob("**/*.py"))
# Names of models and methods; the core knows none of them.
FOREIGN = "lora dora ia3 compacter vera bitfit llama bloom opt gptj gpt2 mistral qwen gemma falcon".split()


def imports(path):
    """Every module that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def type_checking_names():
    """Name to module, as the block for type checkers has it."""
    tree = ast.parse((ROOT / "core" / "llmad" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_all_is_what_type_checkers_see_and_what_resolves():
    assert set(llmad.__all__) == type_checking_names().keys()
    for name, module in type_checking_names().items():
        assert getattr(llmad, name) is getattr(importlib.import_module(module), name)


def test_all_names_nothing_twice():
    assert len(set(llmad.__all__)) == len(llmad.__all__)
    assert dir(llmad) == sorted(llmad.__all__)


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'llmad' has no attribute 'attch'"):
        _ = llmad.attch


@pytest.mark.parametrize("name", llmad.__all__)
def test_what_is_public_says_what_it_is(name):
    value = getattr(llmad, name)
    if not inspect.isclass(value):
        assert callable(value) or name == "Split"
        assert name in ("Split", "hookimpl") or inspect.getdoc(value)
        return
    assert value.__doc__
    for member, function in vars(value).items():
        if inspect.isfunction(function) and not member.startswith("_"):
            assert inspect.getdoc(function), f"{name}.{member}"


def test_importing_it_loads_no_torch(python):
    assert (
        python("import sys, llmad; print('torch' in sys.modules, 'pydantic' in sys.modules)").split() == ["False"] * 2
    )


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_imports_no_plugin_and_no_command(path):
    assert not [name for name in imports(path) if re.match(r"llmad_(plugins|cli)\b", name)]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_imports_no_model_of_transformers(path):
    assert not [name for name in imports(path) if name.startswith("transformers.models")]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_a_plugin_uses_what_a_stranger_can_import(path):
    assert not [name for name in imports(path) if re.match(r"llmad\.|llmad_cli\b", name)]


def code_words(path):
    """The words of a file's code: names and text, without docstrings and comments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body.pop(0)
            if not body:
                body.append(ast.Pass())
    return set(re.findall(r"[a-z0-9]+", ast.unparse(tree).lower()))


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_knows_no_model_and_no_method_by_name(path):
    assert not code_words(path) & set(FOREIGN)


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=lambda path: path.stem)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
