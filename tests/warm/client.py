"""A command for the warm process: python client.py SOCKET WORDS... is `llmad WORDS...`.

Its streams are the command's own, signals are passed on, and it ends as the command ends. It is no relation: it has
another process id, and the command survives its SIGKILL. It imports little, to start at once.
"""

import json
import os
import signal
import socket
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(path: str, *words: str) -> None:
    """Have the command done, and end as it ends."""
    folder = os.getcwd()  # noqa: PTH109  # pathlib takes longer to import than all the rest
    ignored = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN]
    told = {"words": words, "folder": folder, "environment": dict(os.environ), "ignored": ignored}
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    text = json.dumps(told).encode() + b"\n"
    server.sendall(text[socket.send_fds(server, [text], [0, 1, 2]) :])
    answers = server.makefile()
    child = int(answers.readline())
    for number in {*SIGNALS} - {*ignored}:
        signal.signal(number, lambda number, _: os.kill(child, number))
    code = os.waitstatus_to_exitcode(int(answers.readline()))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


main(*sys.argv[1:])
