"""JSON to an address and back: what is tried again, what is refused, and that the key stays secret."""

import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.error import URLError

import pytest

from llmad import posting
from llmad.errors import ModelError
from llmad.posting import ATTEMPTS, loopback, post
from tests.stub_endpoint import completion, drip, gigantic, hang, leave, status, stub, truncated

KEY = "sk-very-secret-key"


@pytest.fixture
def server():
    with stub(lambda messages: "fine") as server:
        yield server


@pytest.fixture
def waits(monkeypatch):
    """How long was waited between attempts; nobody waits in a test."""
    waits = []
    monkeypatch.setattr(posting, "sleep", waits.append)
    return waits


def ask(server, key=KEY, timeout=20.0):
    return post(f"{server.url}/chat/completions", {"messages": []}, key, timeout)


def test_json_goes_there_and_comes_back(server):
    assert ask(server) == completion("fine")
    ((headers, body),) = server.seen
    assert body == {"messages": []}
    assert headers["path"] == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_no_header_is_sent(server):
    ask(server, key="")
    assert "Authorization" not in server.seen[0][0]


@pytest.mark.parametrize("fault", [status(429), status(500), status(503, b"<html>"), status(408), leave, truncated])
def test_what_may_pass_is_tried_again(server, waits, fault):
    server.faults = [fault, fault]
    assert ask(server) == completion("fine")
    assert waits == [1, 2]


def test_the_server_says_how_long_to_wait(server, waits):
    server.faults = [status(429, Retry_After="7"), status(429, Retry_After="0"), status(503, Retry_After="soon")]
    ask(server)
    assert waits == [7, 2, 4]


def test_the_wait_may_be_a_date(server, waits):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    server.faults = [status(429, Retry_After=later)]
    ask(server)
    assert 90 < waits[0] <= 100


def test_nobody_waits_for_hours(server, waits):
    server.faults = [status(429, Retry_After="9000")]
    with pytest.raises(ModelError, match="answers 429; it asks to wait 9000 s"):
        ask(server)
    assert waits == []


def test_attempts_are_bounded(server, waits):
    server.faults = [status(500, {"error": {"message": "on\nfire"}})] * 99
    with pytest.raises(ModelError, match="it answers 500: on fire, 6 times") as caught:
        ask(server)
    assert len(server.seen) == ATTEMPTS
    assert waits == [1, 2, 4, 8, 16]
    assert "goes on" in caught.value.hint


@pytest.mark.parametrize("fault", [hang, drip])
def test_a_server_that_takes_too_long_is_tried_again(server, waits, fault):
    server.faults = [fault]
    assert ask(server, timeout=1.0) == completion("fine")
    assert waits == [1]


def test_nobody_there_is_told_after_the_last_attempt(server, waits):
    with stub(lambda _: "") as gone:
        pass
    with pytest.raises(ModelError, match=r"no answer: .*refused, 6 times"):
        ask(gone)


@pytest.mark.parametrize("number", [400, 401, 403, 404, 422])
def test_a_refusal_is_told_at_once(server, waits, number):
    server.faults = [status(number, {"error": {"message": "no such thing"}})]
    with pytest.raises(ModelError, match=f"completions answers {number}: no such thing"):
        ask(server)
    assert waits == []
    assert len(server.seen) == 1


def test_a_redirect_is_not_followed(server, waits):
    with stub(lambda _: "") as other:
        server.faults = [status(number, Location=f"{other.url}/x") for number in (301, 302, 303, 307, 308)]
        for _ in range(5):
            with pytest.raises(ModelError, match=f"redirects to {other.url}/x, which is not followed"):
                ask(server)
        assert other.seen == []


@pytest.mark.parametrize("content", [b"", b"<html>", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_json_is_refused(server, waits, content):
    server.faults = [status(200, content)]
    with pytest.raises(ModelError, match="answers 200 without JSON"):
        ask(server)


def test_a_gigantic_answer_is_not_read(server, waits):
    server.faults = [gigantic]
    with pytest.raises(ModelError, match="answers with more than 4 MiB"):
        ask(server)


@pytest.mark.parametrize("number", [401, 302, 500])
def test_a_key_that_comes_back_is_not_shown(server, waits, number):
    server.faults = [status(number, {"error": {"message": f"bad {KEY}"}}, Location=f"/{KEY}")] * ATTEMPTS
    with pytest.raises(ModelError) as caught:
        ask(server)
    assert KEY not in str(caught.value) + caught.value.hint
    assert "[key]" in str(caught.value)


def test_the_words_of_a_server_are_bounded(server):
    server.faults = [status(400, b"x" * 100_000)]
    with pytest.raises(ModelError) as caught:
        ask(server)
    assert len(str(caught.value)) < 500


def test_no_proxy_stands_between_this_machine_and_itself(server, monkeypatch):
    with stub(lambda _: "diverted") as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        assert ask(server) == completion("fine")
        assert proxy.seen == []


def test_a_certificate_that_does_not_hold_is_not_tried_again(monkeypatch, waits):
    def fail(*_, **__):
        raise URLError(ssl.SSLCertVerificationError("self-signed"))

    monkeypatch.setattr(posting.OpenerDirector, "open", fail)
    with pytest.raises(ModelError, match="self-signed"):
        post("https://host/v1", {}, KEY, 1)
    assert waits == []


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("0.0.0.0", False),
     ("127.0.0.1.host", False), ("localhost.host", False), ("10.0.0.1", False), ("", False)],
)  # fmt: skip
def test_which_hosts_are_this_machine(host, here):
    assert loopback(host) == here
