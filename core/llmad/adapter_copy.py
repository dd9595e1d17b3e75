"""A copy of an adapter as it is at one moment, in main memory, from which its directory is written and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from llmad.attachment import attached
from llmad.files import make, replace, write_json
from llmad.filling import copies
from llmad.fingerprint import fingerprint
from llmad.proof import check_tensors
from llmad.quantization import quantization
from llmad.record import ABOUT, BUILT_ON, CONFIG, FORMAT, WEIGHTS
from llmad.registry import registry
from llmad.spec import Tensors


@dataclass(frozen=True)
class AdapterCopy:
    """What an adapter directory holds.

    Attributes:
        config: of `adapter_config.json`.
        tensors: of `adapter_model.safetensors`, on the CPU; nobody else has their memory.
        record: of `llmad.json`.
        built_on: copies of the adapters below, by their names.
    """

    config: Mapping[str, Any]
    tensors: Tensors
    record: Mapping[str, Any]
    built_on: Mapping[str, "AdapterCopy"]

    def write(self, folder: Path) -> Path:
        """Write the directory, which is made if it is not there; each file appears whole or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        for name, other in self.built_on.items():
            other.write(folder / BUILT_ON / name)
        make(folder)
        held = dict(self.tensors)
        replace(folder / WEIGHTS, lambda temporary: save_file(held, temporary, metadata={"format": "pt"}))
        write_json(folder / CONFIG, self.config)
        write_json(folder / ABOUT, self.record)
        return folder

    def check(self, folder: Path) -> None:
        """Read the tensors of a directory back, and those of the adapters below.

        Raises:
            StorageError: the first tensor that differs.
        """
        for name, other in self.built_on.items():
            other.check(folder / BUILT_ON / name)
        check_tensors(folder / WEIGHTS, self.tensors)


def copied(
    model: nn.Module, name: str = "default", about: Mapping[str, Any] | None = None, built_on: Sequence[str] = ()
) -> AdapterCopy:
    """Copy an adapter; the arguments are those of `adapter_dir.save`.

    Raises:
        UsageError: no adapter has that name.
    """
    own = attached(model, name)
    config, tensors = own.spec.export(copies(own.modules))
    origin = registry().origin(type(own.spec))
    record = {
        "format": FORMAT,
        "method": own.spec.name,
        "options": own.spec.options(),
        "sites": [site.describe() for site in own.modules],
        "base": {"model_type": _model_type(model), "fingerprint": fingerprint(model)},
        "quantization": quantization(model),
        "plugin": {"distribution": origin.distribution, "version": origin.version} if origin else None,
        "built_on": list(built_on),
        **(about or {}),
    }
    return AdapterCopy(config, tensors, record, {other: copied(model, other) for other in built_on})


def _model_type(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", ""))
