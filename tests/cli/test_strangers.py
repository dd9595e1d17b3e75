"""Directories of strangers: each is one change away from one that is evaluated and merged, and refused in one line."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

WEIGHTS, CONFIG, ABOUT = "adapter_model.safetensors", "adapter_config.json", "llmad.json"
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
SECOND = FIRST.replace("q_proj", "v_proj")


@pytest.fixture
def adapter(trained, place):
    """A copy of a trained adapter."""
    return shutil.copytree(trained / "adapter", place / "a")


def tensors(change):
    def apply(folder):
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS)

    return apply


def record(file=ABOUT, **values):
    def apply(folder):
        found = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**found, **values}))

    return apply


def base(**values):
    def apply(folder):
        about = json.loads((folder / ABOUT).read_text())["base"]
        record(base={**about, **{key: {**about[key], **value} for key, value in values.items()}})(folder)

    return apply


def content(file, data):
    return lambda folder: (folder / file).write_bytes(data)


def replaced(file, make):
    def apply(folder):
        (folder / file).rename(folder.parent / f"moved-{file}")
        make(folder / file)

    return apply


BAD = {
    "a tensor is missing": (tensors(lambda t: t.pop(FIRST)), "missing-tensor"),
    "a tensor is there too many": (tensors(lambda t: t.update(extra=torch.ones(1))), "extra-tensor"),
    "a tensor has another name": (tensors(lambda t: t.update({f"{FIRST}x": t.pop(FIRST)})), "missing-tensor"),
    "a tensor is turned": (tensors(lambda t: t.update({SECOND: t[SECOND].T.contiguous()})), "misshapen-tensor"),
    "a tensor is not a number": (tensors(lambda t: t[FIRST][0, 0].fill_(torch.nan)), "not-finite"),
    "a tensor is infinite": (tensors(lambda t: t[FIRST][0, 0].fill_(-torch.inf)), "not-finite"),
    "a tensor is of integers": (tensors(lambda t: t.update({FIRST: t[FIRST].int()})), "wrong-dtype"),
    "the file is cut off": (lambda f: os.truncate(f / WEIGHTS, 900), "broken-adapter"),
    "the header claims terabytes": (content(WEIGHTS, (1 << 43).to_bytes(8, "little") + b"{}"), "broken-adapter"),
    "the weights are a pickle": (content(WEIGHTS, b"\x80\x04cos\nsystem\n"), "broken-adapter"),
    "the weights are a link away": (replaced(WEIGHTS, lambda p: p.symlink_to(f"../moved-{WEIGHTS}")), "link-outside"),
    "the weights are a pipe": (replaced(WEIGHTS, os.mkfifo), "broken-adapter"),
    "the weights are a device": (replaced(WEIGHTS, lambda p: p.symlink_to("/dev/zero")), "link-outside"),
    "the weights are a directory": (replaced(WEIGHTS, os.mkdir), "broken-adapter"),
    "the config is a pipe": (replaced(CONFIG, os.mkfifo), "broken-adapter"),
    "the record is a link away": (replaced(ABOUT, lambda p: p.symlink_to(f"../moved-{ABOUT}")), "link-outside"),
    "the record names another base": (base(fingerprint={"names and shapes": "0" * 64}), "other-base"),
    "the record leaves the base open": (base(fingerprint={"names and shapes": None}), "other-base"),
    "the record has another method": (record(method="dora"), "missing-tensor"),
    "the record has a method nobody has": (record(method="nobody"), "unknown-adapter"),
    "the record has an import in its place": (record(method="os:system"), "unknown-adapter"),
    "the record has another rank": (record(options={"r": 4}), "misshapen-tensor"),
    "the record has another alpha": (record(options={"r": 8, "alpha": 1}), "other-config"),
    "the config has another alpha": (record(CONFIG, lora_alpha=1), "other-config"),
    "the config asks for more": (record(CONFIG, modules_to_save=["lm_head"]), "other-config"),
    "the record asks for terabytes": (record(options={"r": 1 << 36}), "misshapen-tensor"),
    "the record asks for what no memory holds": (record(options={"r": 1 << 60}), None),
    "the record has one site fewer": (record(sites=[]), "other-base"),
    "the record leads elsewhere": (record(built_on=["../../a"]), "broken-adapter"),
    "the record is built on nothing": (record(built_on=["b"]), "no-adapter"),
    "the record's task is no text": (record(task=["arithmetic"]), "broken-adapter"),
    "the record's prompt is none": (record(prompt={"question": 5}, prompt_fingerprint=None), "broken-adapter"),
    "the record's prompt is another": (record(prompt={"question": "{instruction}"}), "other-prompt"),
    "the record names a base on the hub": (record(backbone="owner/name"), "not-downloaded"),
    "the record says a key twice": (content(ABOUT, b'{"format": 1, "format": 1}'), "broken-adapter"),
    "the record is deep": (content(ABOUT, b"[" * 100_000), "broken-adapter"),
    "the record is empty": (content(ABOUT, b""), "broken-adapter"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_directory_is_told(refused, llmad, adapter, case):
    change, code = BAD[case]
    change(adapter)
    for words in (("evaluate", "a", "--limit", 1, "--task", "arithmetic"), ("merge", "a", "--output", "merged")):
        if not any(path.is_fifo() for path in adapter.iterdir()):  # the fixture reads every file
            said = refused(4, *words)
        else:
            done = llmad(*words)
            assert (done.code, done.out) == (4, "")
            said = done.err
        assert code is None or f"[{code}]" in said, said
        assert len(said.splitlines()) <= 2


def test_its_twin_is_evaluated_and_merged(llmad, adapter):
    for words in (("evaluate", "a", "--limit", 1), ("merge", "a", "--output", "merged")):
        done = llmad(*words)
        assert done.code == 0, done.err
