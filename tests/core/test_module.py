import copy

import torch
from torch import nn

from llmad import AdapterModule
from llmad.module import mergeable


class Layer(AdapterModule):
    def __init__(self, width):
        super().__init__()
        self.down = self.linear(width, 2)


class Deeper(Layer):
    def __init__(self):
        super().__init__(width=4)
        self.scale = nn.Parameter(torch.ones(()))

    def delta(self):
        return self.scale


def test_an_instance_is_a_torch_module_and_an_instance_of_its_class():
    layer = Layer(4)
    assert isinstance(layer, nn.Module)
    assert isinstance(layer, Layer)
    assert type(layer).__name__ == "Layer"
    assert type(layer) is type(Layer(3))


def test_a_subclass_of_a_subclass_works():
    assert set(Deeper().state_dict()) == {"scale", "down.weight", "down.bias"}


def test_a_class_that_is_a_torch_module_already_stays_itself():
    class Both(AdapterModule, nn.Module):
        pass

    assert type(Both()) is Both


def test_a_deep_copy_is_equal_and_independent():
    layer = Layer(4)
    twin = copy.deepcopy(layer)
    assert type(twin) is type(layer)
    with torch.no_grad():
        twin.down.weight.zero_()
    assert layer.down.weight.count_nonzero()


def test_the_host_is_no_part_of_the_state(llama):
    import llmad

    llmad.attach(llama, "series[sites=attn.o]")
    adapter = llama.model.layers[0].self_attn.o_proj.adapters["default"]["attn_o"]
    assert adapter.host is llama.model.layers[0].self_attn.o_proj
    assert set(adapter.state_dict()) == {"down.weight", "down.bias", "up.weight", "up.bias"}
    assert adapter.host not in list(adapter.modules())


def test_linear_computes_in_the_dtype_of_its_input():
    layer = AdapterModule.linear(4, 3)
    assert layer(torch.randn(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32


def test_activation_knows_the_names_of_transformers():
    assert torch.equal(AdapterModule.activation("relu")(torch.tensor([-1.0, 1.0])), torch.tensor([0.0, 1.0]))


def test_mergeable_says_whether_there_is_a_delta():
    assert mergeable(Deeper())
    assert not mergeable(Layer(4))


DEFERRED = """
import sys
from llmad import AdapterModule

class Layer(AdapterModule):
    def __init__(self):
        import torch
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

assert "torch" not in sys.modules
layer = Layer()
import torch
assert isinstance(layer, torch.nn.Module) and isinstance(layer, Layer)
print(list(layer.state_dict()))
"""


def test_a_subclass_made_before_torch_is_imported_works(python):
    assert python(DEFERRED).strip() == "['weight']"
