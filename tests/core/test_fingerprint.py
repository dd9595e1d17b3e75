import torch

import llmad
from llmad.fingerprint import fingerprint


def test_it_is_the_same_in_another_dtype(tiny):
    assert fingerprint(tiny("llama")) == fingerprint(tiny("llama").to(torch.bfloat16))


def test_adapters_do_not_count(model):
    before = fingerprint(model)
    llmad.attach(model, "lora")
    assert fingerprint(model) == before


def test_other_weights_differ(tiny):
    assert fingerprint(tiny("llama")) != fingerprint(tiny("llama", seed=1))


def test_another_depth_differs(tiny):
    assert fingerprint(tiny("llama")) != fingerprint(tiny("llama", layers=4))


def test_it_needs_no_weights_to_exist(tiny):
    assert fingerprint(tiny("llama").to("meta")) == fingerprint(tiny("llama", seed=1).to("meta"))
