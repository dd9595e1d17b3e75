"""Bases that would slip in an adapter, pickles or code, each a change away from one that is loaded."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import llmad
from llmad import pretrained
from llmad.errors import ModelError, OutOfMemoryError, UsageError

CODE = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nclass Evil: pass\n"


@pytest.fixture
def base(folder, tmp_path):
    """A copy of the tiny folder; `base(key=value)` changes its config."""
    path = shutil.copytree(folder, tmp_path / "base")

    def base(**change):
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **change}))
        return path

    return base


def refused(path, load=pretrained.load):
    with pytest.raises(ModelError) as caught:
        load(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # PEFT's own
def test_an_adapter_of_pefts_in_the_folder_of_the_base_is_refused(base, tmp_path, ids, logits):
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base()), LoraConfig(init_lora_weights=False))
    model.save_pretrained(tmp_path / "peft")
    for file in (tmp_path / "peft").glob("adapter_*"):
        shutil.copy(file, base())
    error = refused(base())
    assert error.code == "stray-adapter"
    assert "--backbone" in error.hint
    assert refused(base(), pretrained.skeleton).code == "stray-adapter"
    for file in base().glob("adapter_*"):
        file.unlink()
    found = pretrained.load(str(base())).model
    assert not hasattr(found, "peft_config")
    llmad.load(found, tmp_path / "peft")
    torch.testing.assert_close(logits(found), logits(model.eval()))


def test_an_adapter_is_no_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError) as caught:
        pretrained.load(str(tmp_path))
    assert "it is an adapter" in caught.value.hint


@pytest.mark.parametrize("file", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickled_weights_are_refused_unread(base, file):
    (base() / "model.safetensors").unlink()
    assert refused(base()).code == "broken-backbone"
    (base() / file).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    error = refused(base())
    assert error.code == "pickled-weights"
    assert file in str(error)


def test_pickled_weights_beside_others_are_passed_over(base):
    (base() / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    assert pretrained.load(str(base())).model


@pytest.mark.parametrize("load", [pretrained.load, pretrained.skeleton])
def test_code_in_the_folder_is_not_run(base, load, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (base() / "evil.py").write_text(CODE)
    named = {"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}}
    assert load(str(base(**named)))  # transformers has this type itself
    assert refused(base(**named, model_type="evil"), load).code == "needs-code"
    assert not (base() / "ran").exists()


def test_code_of_a_tokenizer_is_not_run(base, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    path = base() / "tokenizer_config.json"
    (base() / "evil.py").write_text(CODE)
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    assert pretrained.load(str(base())).tokenizer.eos_token == "<eos>"
    path.write_text(json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    (base() / "tokenizer.json").unlink()
    assert refused(base()).code == "broken-backbone"
    assert not (base() / "ran").exists()


@pytest.mark.parametrize("kernel", ["stranger/kernel", "kernels-community/flash-attn", {"": "a/b"}, 5])
def test_a_kernel_of_the_hub_is_not_fetched(base, kernel):
    assert pretrained.load(str(base(attn_implementation="eager"))).model.config._attn_implementation == "eager"
    assert refused(base(attn_implementation=kernel)).code == "needs-code"


@pytest.mark.parametrize(("file", "content"), [
    ("tokenizer.json", b"[]"), ("tokenizer.json", b"null"), ("tokenizer.json", b"\0\xff"), ("tokenizer.json", b"{}"),
    ("tokenizer_config.json", b"[]"), ("tokenizer_config.json", b'{"eos_token": 5}'),
    ("tokenizer_config.json", b'{"tokenizer_class": 5}'), ("generation_config.json", b"[]"),
    ("generation_config.json", b'{"max_new_tokens": -5}'), ("config.json", b""), ("config.json", b"5"),
    ("config.json", b"[]"), ("config.json", b'{"model_type": "llama", "hidden_size": "x"}'),
    ("config.json", b'{"model_type": "llama", "num_attention_heads": 0}'), ("model.safetensors", b"junk" * 30),
    ("config.json", b'{"model_type": "llama", "hidden_size": 1000000000000}'),
])  # fmt: skip
def test_what_cannot_be_read_is_told_in_one_line(base, file, content):
    path = base()
    assert pretrained.load(str(path))
    (path / file).write_bytes(content)
    assert refused(path).code == "broken-backbone"


def test_a_base_that_only_a_record_names_is_not_fetched(folder, tmp_path, monkeypatch):
    cache = tmp_path / "models--owner--tiny"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("connected"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("looked up"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    name = pretrained.one_backbone(None, [{"backbone": "owner/tiny"}])
    for ask in (pretrained.load, pretrained.skeleton, pretrained.stored_quantization):
        with pytest.raises(ModelError, match="which was not downloaded before") as caught:
            ask(name)
        assert caught.value.code == "not-downloaded"
        assert "--backbone owner/tiny" in caught.value.hint
    shutil.copytree(folder, cache / "snapshots" / "abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    found = pretrained.load(name)
    assert (found.name, found.tokenizer.eos_token) == ("owner/tiny", "<eos>")


def test_memory_that_is_short_while_loading_is_told(folder, monkeypatch):
    def short(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", short)
    with pytest.raises(OutOfMemoryError):
        pretrained.load(folder)
