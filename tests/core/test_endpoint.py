"""A teacher behind an address: what is asked, how a reply is read, which addresses are taken."""

import pytest

from llmad.endpoint import KEY, Endpoint, endpoint
from llmad.errors import ModelError, UsageError
from llmad.teacher import Reply
from tests.stub_endpoint import status, stub

SECRET = "sk-very-secret-key"


@pytest.fixture
def server():
    with stub(lambda messages: f"{len(messages)}: {messages[-1]['content']}") as server:
        yield server


@pytest.fixture
def teacher(server):
    return Endpoint(server.url, "m", seed=3, temperature=0.5, key=SECRET)


def at(address, model="m"):
    return endpoint(address, model, 8, 0.0, 0, 10.0)


def test_a_question_goes_out_as_a_chat(teacher, server):
    assert teacher.reply([("a",), ("a", "b", "c")], 9) == [Reply("1: a", True), Reply("3: c", True)]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    options = {"model": "m", "temperature": 0.5, "max_tokens": 9, "seed": 3}
    assert [body for _, body in server.seen] == [{"messages": turns[:1], **options}, {"messages": turns, **options}]


def test_a_reply_that_was_cut_off_is_known(teacher, server):
    server.answer = lambda _: ("so far", "length")
    assert teacher.reply([("a",)], 9) == [Reply("so far", False)]


def test_a_reply_may_have_no_text_and_no_reason(teacher, server):
    server.faults = [status(200, {"choices": [{"message": {"content": None}}]})]
    assert teacher.reply([("a",)], 9) == [Reply("", True)]


@pytest.mark.parametrize(
    "content",
    [{}, [], "", 1, None, {"choices": []}, {"choices": {}}, {"choices": [1]}, {"choices": [{"message": None}]},
     {"choices": [{"message": {}}]}, {"choices": [{"message": {"content": 1}}]},
     {"choices": [{"message": {"content": [{"text": "a"}]}}]}],
    ids=str,
)  # fmt: skip
def test_what_is_no_reply_is_refused(teacher, server, content):
    server.faults = [status(200, content)]
    with pytest.raises(ModelError, match=r"answers without choices\[0\]\.message\.content"):
        teacher.reply([("a",)], 9)


def test_half_characters_are_replaced(teacher, server):
    server.answer = lambda _: "a\ud800b"
    assert teacher.reply([("a",)], 9) == [Reply("a?b", True)]


def test_the_key_is_in_no_reply_and_no_description(teacher, server):
    server.answer = lambda _: f"your key is {SECRET}"
    assert teacher.reply([("a",)], 9) == [Reply("your key is [key]", True)]
    assert SECRET not in repr(teacher) + str(teacher.identity())


def test_each_question_is_a_group(teacher):
    assert teacher.groups([("a",), ("b",)]) == [[0], [1]]


def test_the_key_comes_from_the_environment_alone(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    assert at("https://host/v1").key == ""
    monkeypatch.setenv(KEY, f" {SECRET}\n")
    assert at("https://host/v1").key == SECRET


@pytest.mark.parametrize("key", ["sk-a\r\nX: y", "sk-\xe4", "sk a"])
def test_a_key_that_no_header_carries_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv(KEY, key)
    with pytest.raises(UsageError, match="no header can carry") as caught:
        at("https://host/v1")
    assert "sk" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "url"),
    [("https://host/v1", "https://host/v1"), ("https://host:8443/a/v1/", "https://host:8443/a/v1"),
     ("http://127.0.0.1:8000/v1/chat/completions", "http://127.0.0.1:8000/v1"),
     ("http://localhost/v1", "http://localhost/v1"), ("http://[::1]:80/v1", "http://[::1]:80/v1"),
     ("HTTPS://host/v1", "HTTPS://host/v1")],
)  # fmt: skip
def test_addresses_of_endpoints(address, url):
    assert at(address).url == url


@pytest.mark.parametrize("host", ["host", "10.0.0.1:8000", "localhost.host", "127.0.0.1.host", "0.0.0.0", "user"])
def test_plain_http_to_another_machine_is_refused(host):
    with pytest.raises(UsageError, match="would travel in clear") as caught:
        at(f"http://{host}/v1")
    assert caught.value.hint == f"write https://{host}/v1"


@pytest.mark.parametrize(
    "address",
    ["ftp://host/v1", "file:///etc/passwd", "https://", "https:///v1", "https://host:x/v1", "https://host:99999/v1",
     "https://[::1/v1", "https://host/v 1", "https://host/\n", "https://höst/v1", "https://host:0/v1"],
)  # fmt: skip
def test_what_is_no_address_of_an_endpoint_is_refused(address):
    with pytest.raises(UsageError, match="none of http or https"):
        at(address)


@pytest.mark.parametrize(
    "address",
    ["https://me:secret@host/v1", "https://secret@host/v1", "https://host/v1?key=secret", "https://h/#secret"],
)
def test_a_secret_in_an_address_is_refused_and_not_shown(address):
    with pytest.raises(UsageError, match="has no user") as caught:
        at(address)
    assert "secret" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("model", [None, ""])
def test_an_endpoint_needs_a_model(model):
    with pytest.raises(UsageError, match="which model") as caught:
        at("https://host/v1", model)
    assert "--model" in caught.value.hint
