"""Several processes, as a launcher starts them: one interpreter that has imported everything, forked for each.

`python tests/launched.py` reads a JSON object a line and answers with one. It starts `count` processes with the
environment of torchrun, and holds the store by which they meet, as torchrun does. Each runs `code`, where there is
some, and then the command `llmad WORDS...`.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

IMPORTED = (  # nothing is computed before a fork: torch has no threads then that a fork would lack
    "accelerate",
    "llmad.run",
    "llmad_cli.app",
    "llmad_cli.progress",
    "torch.distributed",
    "transformers.generation.utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative for a signal, what it printed, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float


class Launcher:
    """Asks the interpreter that is forked."""

    def __init__(self, server: "subprocess.Popen[str]") -> None:
        self.server = server

    def __call__(
        self, *words: object, count: int = 2, code: str = "", signals: Sequence[Any] = (), agent: bool = False
    ) -> list[Ended]:
        """Start processes and wait until all have ended.

        Args:
            words: of the command; none where `code` is all.
            count: how many processes.
            code: Python that each runs first.
            signals: `(when, number of the process, signal)`; when is seconds from the start, a path that is there, or
                a path and the seconds since.
            agent: when one has failed, end the others with SIGTERM, as torchrun does.
        """
        told = {"words": [*map(str, words)], "count": count, "code": code, "signals": [*signals], "agent": agent}
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps(told, default=str) + "\n")
        self.server.stdin.flush()
        return [Ended(**one) for one in json.loads(self.server.stdout.readline())]


@contextmanager
def launcher() -> Iterator[Launcher]:
    """Start the interpreter, and end it after the block."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, __file__], env=environment, **pipes) as server:
        try:
            yield Launcher(server)
        finally:
            server.kill()


def _serve() -> None:
    for name in IMPORTED:
        import_module(name)
    import llmad.launch
    import llmad.report
    from llmad.registry import registry

    registry()
    gc.freeze()
    os.fsync = os.fstat  # no test waits for disks
    llmad.launch._MOMENT = 0.3
    llmad.report.plot_loss = lambda _, path: path.write_bytes(b"png")
    for line in sys.stdin:
        print(json.dumps(_launched(**json.loads(line))), flush=True)


def _launched(
    words: list[str], count: int, code: str, signals: list[tuple[Any, int, int]], agent: bool
) -> list[dict[str, Any]]:
    from torch.distributed import TCPStore

    with socket.socket() as free, tempfile.TemporaryDirectory() as place:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        began = time.monotonic()
        children = [_start(rank, count, port, words, code, Path(place)) for rank in range(count)]
        store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False) if count > 1 else None
        ended: dict[int, dict[str, Any]] = {}
        while len(ended) < count and time.monotonic() - began < 100:
            time.sleep(0.002)
            due = [one for one in signals if _is_due(one[0], began)]
            signals = [one for one in signals if one not in due]
            for _, rank, number in due:
                if rank not in ended:
                    os.kill(children[rank], number)
            for rank, child in enumerate(children):
                found, status = os.waitpid(child, os.WNOHANG) if rank not in ended else (0, 0)
                if found:
                    said = {name: (Path(place) / f"{rank}.{name}").read_text() for name in ("out", "err")}
                    seconds = time.monotonic() - began
                    ended[rank] = {"code": os.waitstatus_to_exitcode(status), "seconds": seconds, **said}
                    signals += [(0, other, signal.SIGTERM) for other in range(count) if agent and status]
        for rank, child in enumerate(children):
            if rank not in ended:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                ended[rank] = {"code": -1, "out": "", "err": "hangs", "seconds": time.monotonic() - began}
        del store
    return [ended[rank] for rank in range(count)]


def _is_due(when: Any, began: float) -> bool:
    if isinstance(when, int | float):
        return time.monotonic() - began >= when
    path, delay = (when, 0.0) if isinstance(when, str) else when
    return Path(path).exists() and time.time() - Path(path).stat().st_mtime >= delay


def _start(rank: int, count: int, port: int, words: list[str], code: str, place: Path) -> int:
    for name in ("out", "err"):
        (place / f"{rank}.{name}").touch()  # it may be killed before it does so
    child = os.fork()
    if child:
        return child
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for name, handle in (("out", 1), ("err", 2)):
            os.dup2(os.open(place / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT), handle)
        if count > 1:
            own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
            os.environ.update({name: str(value) for name, value in {**own, **where}.items()})
        exec(code, {"rank": rank})
        ended = _command(words) if words else 0
    except BaseException:
        traceback.print_exc()
        ended = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)


def _command(words: list[str]) -> int:
    from llmad_cli.app import main

    sys.argv = ["llmad", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    _serve()
