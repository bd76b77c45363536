"""What a browser may ask of the page on which a network is tried: what the page itself needs, and no more.

Gradio answers many more routes than one page needs, and a message to it may name any file or address for a
photo (``FileData``). It is not relied on for that: a message is read here, and only what was found to be
right in it is handed on.
"""

import json
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# Whatever stands on the page, a browser fetches nothing from elsewhere for it.
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
        b"font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
        b"frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
)

_API = "/gradio_api"
_FILE = f"{_API}/file="
_JOIN = f"{_API}/queue/join"
_READ = {
    *("/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json"),
    *(
        _API + route
        for route in ("/info", "/startup-events", "/queue/data", "/upload_progress", "/theme.css", "/app_id")
    ),
}
_READ_BELOW = ("/assets/", "/static/", "/svelte/", f"{_API}/heartbeat/")
_SENT = {f"{_API}/upload", f"{_API}/cancel", f"{_API}/reset"}

# A message names one file.
_MESSAGE_BYTES = 64 * 1024


class Guard:
    """Stands before the page, and refuses what the page does not need.

    Args:
        app: The page, as ASGI has it.
        cache: The folder of what was uploaded and restored; no file elsewhere is read or sent.
        inputs: How many values each of the page's functions takes, by its number. Those are photos.
    """

    def __init__(self, app: App, *, cache: Path, inputs: Mapping[int, int]) -> None:
        self._app = app
        self._cache = cache
        self._inputs = inputs

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            self._judge(scope["method"], scope["path"])
            if scope["path"] == _JOIN:
                scope, receive = await self._judged(scope, receive)
        except _RefusedError as refused:
            await _answer(send_on, refused)
            return
        except _LeftError:
            return
        await self._app(scope, receive, send_on)

    def _judge(self, method: str, path: str) -> None:
        if method in ("GET", "HEAD"):
            if path.startswith(_FILE):
                if not lies_in(self._cache, path.removeprefix(_FILE)):
                    raise _RefusedError(403, "not a file of this page")
                return
            if path in _READ or path.startswith(_READ_BELOW):
                return
        elif method == "POST" and (path in _SENT or path == _JOIN):
            return
        raise _RefusedError(404, "not part of this page")

    async def _judged(self, scope: Message, receive: Receive) -> tuple[Message, Receive]:
        """The request with what is right of its message."""
        body = json.dumps(self._right(await _read(receive))).encode()
        lengths = (b"content-length", b"content-type", b"content-encoding", b"transfer-encoding")
        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in lengths]
        headers += [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        unread = True

        async def receive_it() -> Message:
            nonlocal unread
            if unread:
                unread = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        return {**scope, "headers": headers}, receive_it

    def _right(self, body: bytes) -> dict[str, Any]:
        """What the page itself sends, of a message.

        Raises:
            _RefusedError: There is something else in the place of it.
        """
        try:
            said = json.loads(body)
            session, number, given = said["session_hash"], said["fn_index"], said["data"]
            trigger = said.get("trigger_id")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise _RefusedError(400, "not a message of this page") from None
        if (
            not (isinstance(session, str) and session.isalnum())
            or type(number) is not int
            or not isinstance(given, list)
            or len(given) != self._inputs.get(number)
            or not (trigger is None or type(trigger) is int)
        ):
            raise _RefusedError(400, "not a message of this page")
        return {
            "session_hash": session,
            "fn_index": number,
            "trigger_id": trigger,
            "data": [self._uploaded(one) for one in given],
        }

    def _uploaded(self, given: object) -> dict[str, Any]:
        path = given.get("path") if isinstance(given, dict) else None
        if not isinstance(path, str) or not lies_in(self._cache, path):
            raise _RefusedError(403, "not a photo that was uploaded to this page")
        return {"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}}


def lies_in(folder: Path, path: str) -> bool:
    """Whether a path that somebody else gives is that of a regular file in a folder, links followed.

    A path that does not even begin with the folder's is not looked up: on Windows that alone may ask another
    machine.

    >>> lies_in(Path("/tmp/cache"), "/dev/zero")
    False
    """
    given = Path(path)
    if not given.is_relative_to(folder) or os.pardir in given.parts:
        return False
    try:
        found = given.resolve(strict=True)
        return found.is_relative_to(folder.resolve()) and found.is_file()
    except (OSError, ValueError, RuntimeError):
        # There is none, it is too long or has a zero byte in it, or links go round in a circle.
        return False


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _LeftError
        body += message.get("body", b"")
        if len(body) > _MESSAGE_BYTES:
            raise _RefusedError(413, "larger than a message of this page")
        if not message.get("more_body", False):
            return bytes(body)


async def _answer(send: Send, refused: "_RefusedError") -> None:
    body = json.dumps({"detail": refused.line}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _RefusedError(Exception):
    """A request that is not answered by the page."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line


class _LeftError(Exception):
    """Whoever asked is gone."""
