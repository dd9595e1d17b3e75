"""A server on this machine that speaks the chat interface of OpenAI, and fails as it is told."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any

Fault = Callable[["Handler"], None]


class Stub(ThreadingHTTPServer):
    """Answers each question by `answer(messages)`; each of `faults` takes the place of one answer, in turn."""

    daemon_threads = True

    def __init__(self, answer: Callable[[list[dict[str, str]]], Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.faults: list[Fault | None] = []
        self.seen: list[tuple[dict[str, str], Any]] = []
        self.over = Event()
        self.lock = Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is nothing to report."""


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((dict(self.headers) | {"path": self.path}, body))
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault:
            fault(self)
        else:
            self.send(200, completion(self.server.answer(body["messages"])))

    def send(self, status: int, content: Any, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def completion(said: Any) -> dict[str, Any]:
    """A reply in the layout of the interface; `said` is the text, or the text and why it ended."""
    text, reason = said if isinstance(said, tuple) else (said, "stop")
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}]}


def status(number: int, content: Any = b"", **headers: str) -> Fault:
    """Answer with a status: `status(429, Retry_After="7")`."""
    return lambda handler: handler.send(number, content, **headers)


def hang(handler: Handler) -> None:
    """Say nothing until the test is over."""
    handler.server.over.wait(60)


def drip(handler: Handler) -> None:
    """Say a byte now and then."""
    handler.send(200, b"", Content_Length="1000")
    while not handler.server.over.wait(0.02):
        handler.wfile.write(b" ")


def leave(handler: Handler) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


def truncated(handler: Handler) -> None:
    """Promise more than is sent."""
    handler.send(200, b'{"choices": [', Content_Length="500")


def gigantic(handler: Handler) -> None:
    """Send more than any reply has."""
    handler.send(200, b"", Content_Length=str(2**40))
    while True:
        handler.wfile.write(b" " * 2**20)


@contextmanager
def stub(answer: Callable[[list[dict[str, str]]], Any]) -> Iterator[Stub]:
    """A running server."""
    server = Stub(answer)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
