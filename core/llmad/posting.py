"""Posting: JSON to an address and back, bounded in time and size, tried again where that may help.

A redirect is never followed, and a proxy of the environment never stands between this machine and itself: the key goes
to the address that was given, and nowhere else.
"""

import json
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage, HTTPResponse, IncompleteRead
from ipaddress import ip_address
from time import monotonic, sleep, time
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from llmad.errors import ModelError

ATTEMPTS = 6
LARGEST = 4 * 2**20  # bytes of an answer
LONGEST_WAIT = 300.0  # seconds that a server may ask for
_SHOWN = 300  # characters of a server's own words
_SECRET = 8  # characters; a shorter key is a placeholder, and may be a word of the text
_GO_ON = "the same command goes on where this one stopped"
_HINTS = {
    400: "does the model take these options, and a question of this length?",
    401: "the environment variable OPENAI_API_KEY is the key",
    403: "the environment variable OPENAI_API_KEY is the key; may it use this model?",
    404: "is it the base address, such as https://host/v1, and does it have this --model?",
}


class _AgainError(Exception):
    """It may work later; `wait` is how many seconds the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def post(url: str, content: Mapping[str, Any], key: str, timeout: float) -> Any:
    """Send JSON and return the JSON that comes back.

    Too many requests (429), faults of the server (5xx, 408), lost connections and timeouts are tried again, after 1, 2,
    4... seconds or as long as `Retry-After` says.

    Args:
        url: http or https.
        content: what to send.
        key: for the `Authorization` header; none is sent where empty.
        timeout: seconds for one attempt.

    Raises:
        ModelError: refused, redirected, not JSON, too large, or still failing after the last attempt.
    """
    data = json.dumps(content).encode()
    for attempt in range(ATTEMPTS):
        try:
            return _once(url, data, key, timeout)
        except _AgainError as again:
            reason, wait = str(again), again.wait
        if wait > LONGEST_WAIT:
            raise ModelError("endpoint-busy", f"{url}: {reason}; it asks to wait {wait:.0f} s", _GO_ON)
        if attempt + 1 < ATTEMPTS:
            sleep(max(wait, 2.0**attempt))
    raise ModelError("endpoint-failed", f"{url}: {reason}, {ATTEMPTS} times", _GO_ON)


def loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def hidden(text: str, key: str) -> str:
    """The text without the key, which a server may send back."""
    return text.replace(key, "[key]") if len(key) >= _SECRET else text


def _once(url: str, data: bytes, key: str, timeout: float) -> Any:
    headers = {"Content-Type": "application/json", "User-Agent": "llmad"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = Request(url, data, headers, method="POST")  # noqa: S310  an endpoint's scheme is http or https
    try:
        with _opener(url).open(request, timeout=timeout) as response:
            body = _body(response, url, monotonic() + timeout)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)  # urllib wraps what went wrong
        said = hidden(" ".join(str(reason).split()), key) or type(reason).__name__
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise ModelError("untrusted-endpoint", f"{url}: {said}", "is its certificate in order?") from None
        raise _AgainError(f"no answer: {said}") from None
    return _read(url, response.status, response.headers, body, key)


def _opener(url: str) -> OpenerDirector:
    """Has no handler for redirects, and none that makes an error of a status."""
    opener = OpenerDirector()
    direct = loopback(urlsplit(url).hostname or "")
    for handler in (ProxyHandler({} if direct else None), HTTPHandler(), HTTPSHandler()):
        opener.add_handler(handler)
    return opener


def _body(response: HTTPResponse, url: str, deadline: float) -> bytes:
    """Bounded in size, and in time also where it comes byte by byte."""
    body = b""
    while piece := response.read1(2**16):
        body += piece
        if len(body) > LARGEST:
            raise ModelError(
                "bad-answer", f"{url} answers with more than {LARGEST // 2**20} MiB", "is it the right one?"
            )
        if monotonic() > deadline:
            raise TimeoutError("timed out")
    if response.length:
        raise IncompleteRead(body, response.length)
    return body


def _read(url: str, status: int, headers: HTTPMessage, body: bytes, key: str) -> Any:
    if 300 <= status < 400:
        place = hidden(str(headers.get("Location", "elsewhere")), key)[:_SHOWN]
        raise ModelError("redirected", f"{url} redirects to {place}, which is not followed", "give the address it has")
    if status in (408, 429) or status >= 500:
        raise _AgainError(f"it answers {status}{_message(body, key)}", _wait(headers))
    if status >= 400:
        raise ModelError("endpoint-refused", f"{url} answers {status}{_message(body, key)}", _HINTS.get(status, ""))
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ModelError(
            "bad-answer", f"{url} answers {status} without JSON", "is it an endpoint of this kind?"
        ) from None


def _message(body: bytes, key: str) -> str:
    """The server's own words about an error, on one line."""
    text = body.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError, LookupError, TypeError):
        text = str(json.loads(text)["error"]["message"])
    text = " ".join(hidden(text, key).split())[:_SHOWN]
    return f": {text}" if text else ""


def _wait(headers: HTTPMessage) -> float:
    """The seconds of `Retry-After`, which may be a date."""
    text = str(headers.get("Retry-After", "")).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except ValueError:
        return 0.0
