"""A process that has imported what commands need, and is forked for every one of them.

python server.py SOCKET     listens there, says so in a line, and ends with its standard input

To import torch and transformers takes a command seconds, and it does so as often as the tests start it. Here the fork
goes on as a process that was just started would, with the words, the folder, the environment and the streams of its
client (`client.py`): it runs `main`, and ends as that ends. What a library reads of the environment while it is
imported is the exception: that is this process's own. A test of such a variable, or of starting up, starts `llmad`.

Nothing is computed before a fork: torch has no threads then that a fork would lack.
"""

import atexit
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

IMPORTED = (
    "bitsandbytes",
    "llmad.run",
    "llmad_cli.app",
    "matplotlib.figure",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.generation.utils",
)
_LARGEST = 1 << 20  # of a request, in bytes: the environment is most of it


def listen(path: str) -> None:
    """Answer every client by a fork; return in the fork, as the process that the client asked for."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        client, _ = listener.accept()
        if not os.fork():
            listener.close()
            become(client)
            return
        client.close()
        reap()
    reap()
    os.killpg(0, signal.SIGKILL)  # whatever still runs has lost its test


def become(client: socket.socket) -> None:
    """Fork once more: the one tells the client of the other, which takes on what the client is."""
    told, streams = request(client)
    if child := os.fork():
        client.sendall(f"{child}\n".encode())
        client.sendall(f"{os.waitpid(child, 0)[1]}\n".encode())
        os._exit(0)
    client.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in told["ignored"] else usual)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.argv = ["llmad", *told["words"]]


def reap() -> None:
    """Let go of the forks that are over."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def request(client: socket.socket) -> tuple[dict, list[int]]:
    """What a client sends: a line of JSON, and with its first byte the three streams."""
    text, streams, _, _ = socket.recv_fds(client, _LARGEST, 3)
    while not text.endswith(b"\n"):
        text += client.recv(_LARGEST)
    return json.loads(text), streams


def command() -> NoReturn:
    """Run the command line, and end without taking apart what was imported: that would copy every page of it."""
    from llmad_cli.app import main

    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    os.setsid()
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # a collection would write to every object, and so copy its page
    listen(sys.argv[1])
    command()
