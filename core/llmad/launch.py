"""Launch: what a launcher such as torchrun has left in the environment of the processes that it started.

Imports no torch, so that the command line can ask at once who speaks.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmad.errors import UsageError
from llmad.stopping import Stopped, ending

if TYPE_CHECKING:
    from llmad.ranks import Ranks

_MOMENT = 2.0  # seconds; under a launcher its signal comes before
_PLAIN = ("MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU", "MULTI_MUSA", "MULTI_SDAA")
_joined: list["Ranks"] = []


def expected() -> int:
    """How many processes were launched; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1")) if int(os.environ.get("LOCAL_RANK", "-1")) >= 0 else 1


def is_main() -> bool:
    """Whether this process is the first of them all."""
    return expected() == 1 or int(os.environ.get("RANK", "0")) == 0


def speaks() -> bool:
    """Whether this process tells an error of its own: until they have joined, the first of each machine does."""
    return bool(_joined) or expected() == 1 or int(os.environ["LOCAL_RANK"]) == 0


def give_way() -> None:
    """Let the process that tells an error tell it: a launcher ends all of them as soon as one ends."""
    with suppress(Stopped):
        time.sleep(_MOMENT)


def check_alone(what: str) -> None:
    """Refuse what runs in one process only.

    Raises:
        UsageError: several were launched.
    """
    if expected() > 1:
        raise UsageError(
            "one-process",
            f"{expected()} processes were launched; {what} runs in one",
            "start llmad without a launcher; only llmad train takes one",
        )


def accelerator() -> Any:
    """The device that this process trains on. Of precision the recipe speaks, and not accelerate's launcher."""
    import torch
    from accelerate import Accelerator

    if expected() == 1:
        return Accelerator()
    return Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="no")


def join() -> "Ranks":
    """Meet the other processes that were launched, if there are any.

    Raises:
        UsageError: the launcher wants what is not done here, or this process has no device.
        RankError: they do not come.
    """
    from llmad.ranks import ALONE

    if expected() == 1:
        return ALONE
    if not _joined:
        _joined.append(_join())
    return _joined[0]


def _check_device() -> None:
    """Refuse more processes than devices."""
    import torch

    own, there = int(os.environ["LOCAL_RANK"]) + 1, torch.accelerator.device_count()
    if torch.accelerator.is_available() and own > there:
        reason = f"{own} or more processes were launched on a machine with {there} devices"
        raise UsageError("no-device", reason, "launch as many processes as there are devices")


def _join() -> "Ranks":
    from torch import distributed
    from torch.distributed.distributed_c10d import _get_default_store

    from llmad.ranks import Ranks, answering

    _check_device()
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"] and Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all on this machine: nothing goes out
    with answering(), ending():
        device = accelerator()
        if device.num_processes != expected() or device.distributed_type.value not in _PLAIN:
            raise UsageError(
                "one-process",
                f"{expected()} processes were launched as {device.distributed_type.value}, which llmad does not do",
                "launch with torchrun, or with accelerate without DeepSpeed, FSDP and Megatron",
            )
        plain = distributed.get_backend() == "gloo"
        group = distributed.group.WORLD if plain else distributed.new_group(backend="gloo")
        return Ranks(device.process_index, device.num_processes, group, _get_default_store())
