import json

import pytest

import llmad
from llmad.listing import list_plugins


@pytest.mark.parametrize("listing", [llmad.list_adapters, llmad.list_backbones, llmad.list_tasks, list_plugins])
def test_a_listing_is_plain_rows_with_name_origin_and_status(listing):
    rows = listing()
    assert json.loads(json.dumps(rows)) == rows
    assert all({"name", "distribution", "version", "status"} <= row.keys() for row in rows)
    assert len({row["name"] for row in rows}) == len(rows) > 2


def test_a_method_shows_its_default_places():
    assert {row["name"]: row["sites"] for row in llmad.list_adapters()}["lora"] == "attn.q+attn.v"


def test_a_backbone_shows_its_sizes_and_weights():
    rows = {row["name"]: row for row in llmad.list_backbones()}
    assert "llama-7b" in rows["llama"]["shapes"]
    assert rows["abacus"]["weights"] == ["abacus"]


@pytest.mark.parametrize("call", ["list_adapters", "list_backbones", "list_tasks"])
def test_a_listing_loads_no_torch(python, call):
    code = (
        f"import sys, llmad; assert llmad.{call}(); print([n for n in sys.modules if n in ('torch', 'transformers')])"
    )
    assert python(code).strip() == "[]"
