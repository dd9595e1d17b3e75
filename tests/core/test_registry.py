"""The registry, with strangers' distributions faked on the path."""

import sys

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

import llmad
from llmad import LlmadError, ModelError, UsageError
from llmad.attachment import attached
from llmad.listing import list_plugins
from llmad.match import layout
from llmad.pretrained import skeleton
from llmad.registry import parse_quantizer, registry

GOOD = """
from llmad import AdapterModule, AdapterSpec, Sites, hookimpl

class Good(AdapterSpec):
    '''A stranger's method.'''
    name = "{name}"
    sites: Sites = Sites("attn.q")
    def build(self, site):
        return AdapterModule()

@hookimpl
def llmad_adapters():
    return [Good]
"""
HEAD = "from llmad import AdapterSpec, Backbone, Sites, Task, hookimpl\n"
BACKBONE = """
from llmad import Backbone, Fused, hookimpl

OWN = Backbone(
    name="{name}",
    summary="A stranger's description.",
    model_types=("{kind}",),
    model="transformer",
    embed="transformer.wte",
    head="lm_head",
    blocks="transformer.h",
    parts={{"attn.o": "attn.c_proj", "mlp.up": Fused("mlp.c_fc", 1, shares=(1, 1))}},
    shapes={{"{name}-small": {{"model_type": "{kind}", "n_embd": 32, "n_layer": 2, "n_head": 4}}}},
)


@hookimpl
def llmad_backbones():
    return [OWN]
"""
BROKEN = {
    "import-error": ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    "exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("def (", "SyntaxError"),
    "misspelt": (f"{HEAD}@hookimpl\ndef llmad_adapter(): return []", "did you mean llmad_adapters"),
    "unmarked": (f"{HEAD}def llmad_adapters(): return []", "not marked with @hookimpl"),
    "argument": (f"{HEAD}@hookimpl\ndef llmad_adapters(surprise): return []", "surprise"),
    "raises": (f"{HEAD}@hookimpl\ndef llmad_tasks(): raise ValueError('no\\ntasks')", "ValueError: no tasks"),
    "no-list": (f"{HEAD}@hookimpl\ndef llmad_tasks(): return None", "TypeError"),
    "wrong-type": (f"{HEAD}@hookimpl\ndef llmad_backbones(): return ['llama']", "which is not a Backbone"),
    "instance": (f"{HEAD}@hookimpl\ndef llmad_adapters(): return [AdapterSpec]", "not an AdapterSpec class"),
    "nameless": (
        f"{HEAD}class A(AdapterSpec):\n    sites: Sites = Sites('attn.q')\n    def build(self, site): ...\n"
        "@hookimpl\ndef llmad_adapters(): return [A]", "with a name"),
    "quantizerless": (
        "from llmad import Quantizer, hookimpl\nclass Q(Quantizer):\n    name = 'q'\n    def owns(self): ...\n"
        "@hookimpl\ndef llmad_quantizers(): return [Q]", "Q defines no config, dequantize"),
    "no-quantizer": (
        "from llmad import Quantizer, hookimpl\n@hookimpl\ndef llmad_quantizers(): return [Quantizer]",
        "which is not a Quantizer class"),
    "buildless": (
        f"{HEAD}class A(AdapterSpec):\n    name = 'a'\n    sites: Sites = Sites('attn.q')\n"
        "@hookimpl\ndef llmad_adapters(): return [A]", "A defines no build"),
}  # fmt: skip


@pytest.fixture
def install(tmp_path, monkeypatch, fresh_registry):
    """Put a distribution with one plugin module on the path; the entry point is named as the module."""
    modules = set(sys.modules)

    def install(distribution, code, group="llmad.v1", version="1.0", metadata=None):
        folder = tmp_path / distribution
        about = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        module = f"plugin_{distribution.replace('-', '_')}"
        (folder / f"{module}.py").write_text(code)
        text = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (about / "METADATA").write_bytes(text.encode() if metadata is None else metadata)
        (about / "entry_points.txt").write_text(f"[{group}]\n{module} = {module}\n")
        monkeypatch.syspath_prepend(str(folder))
        return module

    yield install
    for name in sys.modules.keys() - modules:
        if name.startswith("plugin_"):
            del sys.modules[name]


def plugin(name):
    (found,) = [plugin for plugin in list_plugins() if plugin["name"] == name]
    return found


def test_a_strangers_method_is_listed_and_works(install):
    module = install("stranger", GOOD.format(name="fancy"), version="2.3")
    (row,) = [row for row in llmad.list_adapters() if row["name"] == "fancy"]
    assert row == {
        "name": "fancy", "summary": "A stranger's method.", "distribution": "stranger", "version": "2.3",
        "status": "ok", "preset": "", "sites": "attn.q",
    }  # fmt: skip
    assert llmad.parse_spec("fancy[layers=1:]").name == "fancy"
    assert llmad.parse_spec("stranger:fancy").name == "fancy"
    assert plugin(module)["offers"] == ["adapter fancy"]


def test_the_origin_of_a_method_is_known(install):
    install("stranger", GOOD.format(name="fancy"))
    assert registry().origin(type(llmad.parse_spec("fancy"))).distribution == "stranger"
    assert registry().origin(type(llmad.parse_spec("lora"))).distribution == "llmad"
    assert registry().origin(llmad.AdapterSpec) is None


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_reported_in_one_line_and_stops_nothing(install, fault):
    code, words = BROKEN[fault]
    module = install("stranger", code)
    install("other", GOOD.format(name="fancy"))
    row = plugin(module)
    assert row["status"] == "broken"
    assert words in row["error"]
    assert "\n" not in row["error"]
    assert row["offers"] == []
    assert {"lora", "fancy"} <= {row["name"] for row in llmad.list_adapters()}


def test_naming_a_broken_plugin_tells_what_is_wrong_with_it(install):
    module = install("stranger", "import nothing_of_that_name")
    with pytest.raises(ModelError) as caught:
        llmad.parse_spec(module)
    assert caught.value.code == "broken-plugin"
    assert "stranger 1.0 is broken: ModuleNotFoundError" in str(caught.value)


def test_an_interrupt_is_not_swallowed(install):
    install("stranger", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        llmad.list_adapters()


def test_a_plugin_of_another_generation_is_reported_and_never_imported(install, tmp_path):
    module = install("stranger", f"open({str(tmp_path / 'imported')!r}, 'w')", group="llmad.v2")
    row = plugin(module)
    assert (row["status"], row["api"]) == ("incompatible", "v2")
    assert "llmad.v2" in row["error"]
    assert not (tmp_path / "imported").exists()


def test_a_name_that_two_strangers_take_belongs_to_neither(install):
    install("first", GOOD.format(name="fancy"))
    install("second", GOOD.format(name="fancy"))
    rows = {row["name"]: row["status"] for row in llmad.list_adapters() if "fancy" in row["name"]}
    assert rows == {"first:fancy": "conflict", "second:fancy": "conflict"}
    with pytest.raises(UsageError) as caught:
        llmad.parse_spec("fancy")
    assert caught.value.code == "ambiguous-adapter"
    assert "first:fancy or second:fancy" in caught.value.hint
    assert registry().origin(type(llmad.parse_spec("second:fancy"))).distribution == "second"


def test_a_built_in_cannot_be_shadowed(install):
    install("stranger", GOOD.format(name="lora"))
    assert llmad.parse_spec("lora").summary().startswith("Low-rank")
    assert llmad.parse_spec("llmad:lora").summary().startswith("Low-rank")
    assert llmad.parse_spec("stranger:lora").summary() == "A stranger's method."
    rows = {row["name"]: row["status"] for row in llmad.list_adapters() if row["name"].endswith("lora")}
    assert rows == {"lora": "ok", "stranger:lora": "conflict"}


def test_a_stranger_describes_a_new_model_type(install):
    install("stranger", BACKBONE.format(name="imagegpt", kind="imagegpt"))
    (row,) = [row for row in llmad.list_backbones() if row["distribution"] == "stranger"]
    assert (row["name"], row["model_types"], row["status"]) == ("imagegpt", ["imagegpt"], "ok")
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4))
    model.config.model_type = "imagegpt"
    assert layout(model).backbone == "imagegpt"
    assert [(site.role, site.out_features) for site in llmad.sites(model) if site.layer == 1] == [
        ("block", 32), ("attn.o", 32), ("mlp.up", 64),
    ]  # fmt: skip
    llmad.attach(model, "lora[sites=mlp.up]")


def test_a_strangers_description_goes_before_what_ships(install, tiny):
    assert layout(tiny("gpt2")).backbone == "gpt2"
    install("stranger", BACKBONE.format(name="mine", kind="gpt2"))
    registry.cache_clear()
    assert layout(tiny("gpt2")).backbone == "mine"
    assert "attn.q" not in {site.role for site in llmad.sites(tiny("gpt2"))}
    assert layout(tiny("bloom")).backbone == "bloom"
    assert len(layout(skeleton("mine-small")).blocks) == 2


def test_it_does_so_under_the_name_of_what_ships(install, tiny):
    install("stranger", BACKBONE.format(name="gpt2", kind="gpt2"))
    rows = {row["name"]: row["status"] for row in llmad.list_backbones() if row["name"].endswith("gpt2")}
    assert rows == {"gpt2": "ok", "stranger:gpt2": "conflict"}
    assert "attn.q" not in {site.role for site in llmad.sites(tiny("gpt2"))}


def test_a_method_under_its_full_name_can_be_saved_and_loaded(install, tiny, tmp_path):
    code = GOOD.replace("return AdapterModule()", "return Layer(site)").replace(
        "class Good",
        "class Layer(AdapterModule):\n    def __init__(self, site):\n        super().__init__()\n"
        "        self.map = self.linear(site.in_features, site.out_features)\n"
        "    def forward(self, base, x):\n        return base(x)\n\nclass Good",
    )
    install("stranger", code.format(name="lora"))
    folder = llmad.save(llmad.attach(tiny("llama"), "stranger:lora"), tmp_path / "a")
    model = llmad.load(tiny("llama"), folder)
    assert any(".map." in name for name, _ in model.named_parameters())


def test_a_strangers_method_is_not_read_as_the_built_in_of_its_name(install, tiny, tmp_path):
    folder = llmad.save(llmad.attach(tiny("llama"), "lora"), tmp_path / "a")
    install("stranger", GOOD.format(name="lora").replace("    name =", "    peft_type = 'LORA'\n    name ="))
    registry.cache_clear()
    model = llmad.load(tiny("llama"), folder)
    assert attached(model, "default").spec.summary().startswith("Low-rank")
    (folder / "llmad.json").unlink()
    model = llmad.load(tiny("llama"), folder)
    assert attached(model, "default").spec.summary().startswith("Low-rank")


def test_a_distribution_found_twice_counts_once(install, tmp_path, monkeypatch):
    module = install("stranger", GOOD.format(name="fancy"))
    monkeypatch.syspath_prepend(str(tmp_path / "stranger" / ".." / "stranger"))
    assert plugin(module)["status"] == "ok"


@pytest.mark.parametrize("metadata", [b"", b"\xff\xfe\x00", b"Version: 1.0\n"])
def test_a_distribution_without_readable_metadata_stops_nothing(install, metadata):
    module = install("stranger", GOOD.format(name="fancy"), metadata=metadata)
    assert plugin(module)["status"] == "broken"
    assert "metadata" in plugin(module)["error"]
    assert llmad.parse_spec("lora")


@pytest.mark.parametrize("name", ["loar", "fancy", "", "attn.q", "stranger:lora"])
def test_an_unknown_name_is_told_with_what_there_is(fresh_registry, name):
    with pytest.raises(UsageError) as caught:
        registry().get("adapter", name)
    assert caught.value.code == "unknown-adapter"
    assert "lora" in caught.value.hint


def test_an_empty_allow_list_means_built_ins_only(install, tmp_path, monkeypatch):
    module = install("stranger", f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.setenv("LLMAD_PLUGINS", "")
    assert plugin(module)["status"] == "skipped"
    assert not (tmp_path / "imported").exists()
    assert llmad.parse_spec("lora")


@pytest.mark.parametrize("allowed", ["first", "plugin_first", "first:plugin_first", " first , "])
def test_an_allow_list_lets_in_what_it_names(install, monkeypatch, allowed):
    install("first", GOOD.format(name="fancy"))
    install("second", GOOD.format(name="other"))
    monkeypatch.setenv("LLMAD_PLUGINS", allowed)
    assert (plugin("plugin_first")["status"], plugin("plugin_second")["status"]) == ("ok", "skipped")
    with pytest.raises(ModelError) as caught:
        llmad.parse_spec("plugin_second")
    assert caught.value.code == "skipped-plugin"
    assert "LLMAD_PLUGINS" in str(caught.value)


def test_an_allow_list_that_names_what_is_not_there_is_refused(install, monkeypatch):
    install("stranger", GOOD.format(name="fancy"))
    monkeypatch.setenv("LLMAD_PLUGINS", "strange")
    with pytest.raises(UsageError) as caught:
        registry()
    assert caught.value.code == "unknown-plugin"
    assert "did you mean stranger" in caught.value.hint


def test_a_strangers_quantizer_is_listed_and_read(install):
    code = (
        "from llmad import Quantizer, hookimpl\nclass Q(Quantizer):\n    '''A stranger's.'''\n    name = 'coarse'\n"
        "    bits: int = 2\n    def config(self, dtype): ...\n"
        "    owns = dequantize = classmethod(lambda cls, module: False)\n"
        "@hookimpl\ndef llmad_quantizers(): return [Q]\n"
    )
    module = install("stranger", code)
    assert plugin(module)["offers"] == ["quantizer coarse"]
    assert "coarse" in [row["name"] for row in llmad.list_quantizers()]
    assert parse_quantizer("coarse[bits=3]").in_full() == "coarse[bits=3]"
    with pytest.raises(UsageError, match="there is no quantizer 'corse'") as caught:
        parse_quantizer("corse")
    assert caught.value.hint.startswith("did you mean coarse?")


def test_capitals_do_not_matter_in_the_name_of_a_task(install):
    code = (
        f"{HEAD}from llmad import Prompt\n@hookimpl\ndef llmad_tasks():\n"
        "    return [Task('MyTask', 'Mine', Prompt('{{instruction}}'), judge=str)]\n"
    )
    install("stranger", code)
    for name in ("MyTask", "mytask", "stranger:MYTASK"):
        assert registry().task(name).name == "MyTask"
    assert registry().task("GSM8K").name == "gsm8k"


def test_every_built_in_loads_and_no_two_have_one_name(fresh_registry):
    rows = [row for row in list_plugins() if row["distribution"] == "llmad"]
    assert {row["status"] for row in rows} == {"ok"}, rows
    offers = [offer for row in rows for offer in row["offers"]]
    assert len(set(offers)) == len(offers)


def test_a_spec_may_be_a_spec_already():
    spec = llmad.parse_spec("lora")
    assert llmad.parse_spec(spec) is spec


def test_every_error_is_an_llmad_error(fresh_registry):
    with pytest.raises(LlmadError):
        registry().task("nothing")
