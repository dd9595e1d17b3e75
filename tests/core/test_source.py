"""What the name of a backbone stands for."""

import pytest

from llmad.errors import UsageError
from llmad.registry import registry
from llmad.source import find


def test_a_built_in_name_is_its_folder():
    (backbone,) = [backbone for backbone in registry().backbones() if "abacus" in backbone.folders]
    assert find("abacus") == backbone.folders["abacus"]


def test_a_known_size_is_its_config():
    assert find("bloom-7b1")["model_type"] == "bloom"


def test_a_folder_is_itself(folder):
    assert str(find(folder)) == folder


def test_a_home_folder_is_found(folder, monkeypatch):
    head, _, tail = folder.rpartition("/")
    monkeypatch.setenv("HOME", head)
    assert str(find(f"~/{tail}")) == folder


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has no config.json"):
        find(str(tmp_path))


def test_a_hub_id_is_taken_as_it_is():
    assert find("owner/name") == "owner/name"


@pytest.mark.parametrize("name", ["lama-7b", "./missing/x", "/missing/x", "~nobody-of-that-name/x", "x" * 5000, "a\0b"])
def test_anything_else_is_refused(name):
    with pytest.raises(UsageError, match="there is no backbone"):
        find(name)
