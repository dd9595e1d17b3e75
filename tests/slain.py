"""A run that is killed for real at its calls of the system, whoever makes them: Python, torch or safetensors' own code.

python slain.py RUN STEP EVERY RECIPE     a run up to STEP, then forks of it, each killed before another call

The run is forked where STEP is done. A fork goes on until it has saved the next step or is over. It is followed with
ptrace: before the call whose turn it is, it gets a SIGKILL, which the kernel obeys before it does the call; a write has
a second turn, at which half of its bytes are written. What the run directory then is lies in RUN/../killed.

Of the calls count those that change a disk: a kill at another finds the same disk as a kill at the next of these. The
last line that is printed is JSON, the calls of a fork that nobody kills. Exit code 77: nothing can be followed here.
"""

import ctypes
import json
import os
import platform
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

TRACEME, SYSCALL, GETREGS, SETREGS, SETOPTIONS = 0, 24, 12, 13, 0x4200
SYSGOOD, EXITKILL = 1, 1 << 20
UNTRACEABLE = 77
AX, ARGUMENTS = 15, (14, 13, 12, 7)  # places in `user_regs_struct` of x86-64: the call's number, rdi, rsi, rdx, r10

# Numbers of x86-64, and which argument is the open file or the path.
BY_FILE = {1: "write", 18: "pwrite64", 20: "writev", 74: "fsync", 75: "fdatasync", 77: "ftruncate", 91: "fchmod",
           285: "fallocate", 296: "pwritev", 328: "pwritev2"}  # fmt: skip
BY_PATH = {2: ("open", 0), 76: ("truncate", 0), 82: ("rename", 0), 83: ("mkdir", 0), 84: ("rmdir", 0),
           85: ("creat", 0), 86: ("link", 0), 87: ("unlink", 0), 88: ("symlink", 0), 90: ("chmod", 0),
           257: ("openat", 1), 258: ("mkdirat", 1), 263: ("unlinkat", 1), 264: ("renameat", 1), 265: ("linkat", 1),
           266: ("symlinkat", 0), 268: ("fchmodat", 1), 316: ("renameat2", 1), 452: ("fchmodat2", 1)}  # fmt: skip
OPENS = {"open": 1, "openat": 2}  # and which argument has the flags

Registers = ctypes.c_ulonglong * 27
ptrace: Any = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
ptrace.restype = ctypes.c_long


class Call(NamedTuple):
    """A call that changes the disk: its name, the file's, and how many bytes it is to write."""

    name: str
    file: str
    size: int


def follow(child: int, folder: Path, at: int | None = None, half: bool = False) -> list[Call]:
    """Let a stopped fork go on, and kill it before the call numbered `at`, or once it stops itself again."""
    calls: list[Call] = []
    os.waitpid(child, 0)
    ptrace(SETOPTIONS, child, None, SYSGOOD | EXITKILL)
    entering, passed = True, 0
    while (stop := _next_stop(child, passed)) != signal.SIGSTOP:
        passed = 0 if stop == signal.SIGTRAP | 0x80 else stop
        if passed:
            continue
        if entering and (call := _call(child, folder)):
            calls.append(call)
            if len(calls) - 1 == at:
                if half:
                    _halve(child)
                break
        entering = not entering
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return calls


def _next_stop(child: int, passed: int) -> int:
    ptrace(SYSCALL, child, None, passed)
    _, status = os.waitpid(child, 0)
    assert os.WIFSTOPPED(status), f"the fork ended by itself: {os.waitstatus_to_exitcode(status)}"
    return os.WSTOPSIG(status)


def _call(child: int, folder: Path) -> Call | None:
    """The call that is about to be made, where it changes the disk."""
    registers = Registers()
    ptrace(GETREGS, child, None, registers)
    number, arguments = registers[AX], [registers[place] for place in ARGUMENTS]
    if name := BY_FILE.get(number):
        file = Path(f"/proc/{child}/fd/{arguments[0]}").readlink()
        return Call(name, file.name, arguments[2] if "write" in name else 0) if file.is_relative_to(folder) else None
    name, place = BY_PATH.get(number, ("", 0))
    if not name or (name in OPENS and not arguments[OPENS[name]] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return None
    return Call(name, Path(_text(child, arguments[place])).name, 0)


def _text(child: int, address: int) -> str:
    with Path(f"/proc/{child}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return os.fsdecode(memory.read(256).split(b"\0")[0])


def _halve(child: int) -> None:
    """Let the write that is about to be made write half, and be done."""
    registers = Registers()
    ptrace(GETREGS, child, None, registers)
    registers[ARGUMENTS[2]] //= 2
    ptrace(SETREGS, child, None, registers)
    _next_stop(child, 0)


class Sweep:
    """An observer of a run, which forks it and kills the forks."""

    def __init__(self, path: Path, step: int, every: int) -> None:
        self.path, self.step, self.every = path, step, every
        self.forked = False

    def __call__(self, event: Any) -> None:
        """Stop a fork that is through, or make and kill all of them."""
        if self.forked and type(event).__name__ in ("Step", "Finished"):
            os.kill(os.getpid(), signal.SIGSTOP)
        elif getattr(event, "step", None) == self.step:
            self.sweep()

    def sweep(self) -> None:
        """Kill a fork at every turn, and end; return in a fork."""
        whole, killed = self.path.with_name("whole"), self.path.with_name("killed")
        shutil.copytree(self.path, whole)
        killed.mkdir()
        calls: list[Call] = []
        turns: list[tuple[int | None, bool]] = [(None, False)]
        for number, half in turns:
            shutil.rmtree(self.path, ignore_errors=True)  # the last turn's may have been taken away
            shutil.copytree(whole, self.path)
            if not (child := os.fork()):
                self.forked = True
                _be_followed()
                return
            found = follow(child, self.path, number, half)
            if number is None:
                calls = found
                turns += _turns(calls, self.every)
            else:
                assert [call.name for call in found] == [call.name for call in calls[: number + 1]]
                self.path.rename(killed / f"{number:04d}-{calls[number].name}{'-half' if half else ''}")
        print(json.dumps(calls), flush=True)
        os._exit(0)


def _be_followed() -> None:
    if ptrace(TRACEME, 0, None, None):
        os._exit(1)
    os.kill(os.getpid(), signal.SIGSTOP)


def _turns(calls: list[Call], every: int) -> list[tuple[int, bool]]:
    """Every so-manieth call, and half of it where it writes; of the largest write, half in any case."""
    largest = max(range(len(calls)), key=lambda number: calls[number].size)
    whole = range(0, len(calls), every)
    halves = sorted({largest, *(number for number in whole if calls[number].size > 1)})
    return [(number, False) for number in whole] + [(number, True) for number in halves]


def _can_follow() -> bool:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return False
    if not (child := os.fork()):
        os._exit(0 if ptrace(TRACEME, 0, None, None) == 0 else 1)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    if not _can_follow():
        sys.exit(UNTRACEABLE)
    import torch

    from llmad import recipe, report
    from llmad.run import train_adapter

    torch.set_num_threads(1)  # a fork has none of its parent's
    report.plot_loss = lambda _, path: path.write_bytes(b"png")
    told = recipe.load([("test", json.loads(sys.argv[4]))])
    train_adapter(told, Sweep(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
