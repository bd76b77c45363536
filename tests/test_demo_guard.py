"""What of the page is answered, and which files: those that were uploaded, whatever a message names."""

import asyncio
import json
import threading
from pathlib import Path

import pytest

from deblur_lab.demo_guard import Guard, lies_in
from deblur_lab.demo_tasks import Tasks
from deblur_lab.demonstration import _app
from deblur_lab.errors import DataError

JOIN = "/gradio_api/queue/join"
FILE = {"_type": "gradio.FileData"}


@pytest.fixture
def cache(tmp_path) -> Path:
    """The page's own folder with an uploaded photo, and what may be tried to get out of it."""
    folder = tmp_path / "page" / "cache"
    (folder / "12ab").mkdir(parents=True)
    (folder / "12ab" / "photo.png").write_bytes(b"photo")
    (tmp_path / "private.png").write_bytes(b"private")
    (tmp_path / "page" / "cache2").mkdir()
    (tmp_path / "page" / "cache2" / "photo.png").write_bytes(b"beside it")
    (folder / "link.png").symlink_to(tmp_path / "private.png")
    (folder / "round.png").symlink_to(folder / "round.png")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "zero.png").symlink_to("/dev/zero")
    return folder


# By where the page's folder of uploads is.
FORGED = [
    "/etc/passwd",
    "/dev/zero",
    "http://127.0.0.1:1/photo.png",
    "https://example.com{cache}/12ab/photo.png",
    "file://{cache}/12ab/photo.png",
    "{cache}/../../private.png",
    "{cache}/12ab/../../../private.png",
    "{cache}/12ab/../12ab/photo.png",
    "{cache}/link.png",
    "{cache}/round.png",
    "{cache}/zero.png",
    "{cache}/folder/private.png",
    "{cache}2/photo.png",
    "{cache}/12ab",
    "{cache}",
    "{cache}/none.png",
    "{cache}/12ab/photo.png\0",
    "{cache}/" + "x" * 300,
    "~/photo.png",
    "photo.png",
    "\\\\host\\share\\photo.png",
    "",
]


@pytest.mark.parametrize("path", FORGED)
def test_a_path_of_somebody_else_is_no_photo(cache, path, monkeypatch):
    monkeypatch.chdir(cache / "12ab")
    path = path.format(cache=cache)
    assert not lies_in(cache, path)
    assert asked(cache, "GET", f"/gradio_api/file={path}") == (403, "not a file of this page", None)
    for given in ({"path": path}, {"path": path, "is_stream": True}, {"path": path, "url": str(cache)}):
        assert asked(cache, "POST", JOIN, message({**given, "meta": FILE})) == (
            403,
            "not a photo that was uploaded to this page",
            None,
        )


def test_a_photo_that_was_uploaded_is_handed_on_and_nothing_else_of_the_message(cache, tmp_path):
    photo = str(cache / "12ab" / "photo.png")
    assert asked(cache, "GET", f"/gradio_api/file={photo}")[0] == 200
    forged = {
        "path": photo,
        "url": "http://127.0.0.1:1/",
        "is_stream": True,
        "size": 1,
        "orig_name": "/etc/x",
    }
    sent = message(forged, trigger_id=5, event_data={"path": "/etc/passwd", "meta": FILE}, batched=True)
    code, _, handed_on = asked(cache, "POST", JOIN, sent)
    assert code == 200
    assert handed_on == {
        "session_hash": "ab1",
        "fn_index": 0,
        "trigger_id": 5,
        "data": [{"path": photo, "orig_name": "photo.png", "meta": FILE}],
    }
    # The page's folder may be reached by a link, as the temporary one of a Mac is.
    (tmp_path / "way").symlink_to(cache)
    assert lies_in(tmp_path / "way", str(tmp_path / "way" / "12ab" / "photo.png"))


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", 400),
        (b"\xff{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"[" * 30_000, 400),
        (b" " * 70_000, 413),
        ({"data": [], "fn_index": 1}, 400),
        ({"data": [], "fn_index": 1, "session_hash": ""}, 400),
        ({"data": [], "fn_index": 0, "session_hash": "a"}, 400),
        ({"data": [], "fn_index": 7, "session_hash": "a"}, 400),
        ({"data": [], "fn_index": True, "session_hash": "a"}, 400),
        ({"data": {}, "fn_index": 1, "session_hash": "a"}, 400),
        ({"data": [], "fn_index": 1, "session_hash": "a", "trigger_id": {"path": "/etc/passwd"}}, 400),
        ({"data": ["/etc/passwd"], "fn_index": 0, "session_hash": "a"}, 403),
        ({"data": [None], "fn_index": 0, "session_hash": "a"}, 403),
        ({"data": [[{"path": "/etc/passwd", "meta": FILE}]], "fn_index": 0, "session_hash": "a"}, 403),
        ({"data": [], "fn_index": 1, "session_hash": "a"}, 200),
    ],
)
def test_only_messages_of_the_page_are_handed_on(cache, sent, code):
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    told, _, handed_on = asked(cache, "POST", JOIN, body)
    assert told == code
    assert (handed_on is None) == (code != 200)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(
            ("POST", f"/gradio_api/{route}")
            for route in (
                *("run/restore", "run/predict/", "api/restore", "call/restore", "call/v2/restore"),
                *("component_server", "process_recording", "queue/join/", "run-history/connect", "vibe-edit"),
            )
        ),
        *(
            ("GET", f"/gradio_api/{route}")
            for route in ("proxy=http://127.0.0.1:1/", "file/etc/passwd", "run")
        ),
        ("GET", "/gradio_api/stream/a/1/2/playlist-file"),
        ("GET", JOIN),
        ("PUT", "/"),
        ("POST", "/login"),
        ("GET", "/monitoring"),
    ],
)
def test_the_rest_of_gradio_is_not_there(cache, method, path):
    assert asked(cache, method, path, message({"path": "/etc/passwd", "meta": FILE})) == (
        404,
        "not part of this page",
        None,
    )


def message(given: object, **more: object) -> bytes:
    return json.dumps({"data": [given], "fn_index": 0, "session_hash": "ab1", **more}).encode()


def asked(cache: Path, method: str, path: str, body: bytes = b"") -> tuple[int, str | None, object]:
    """The status, the line of a refusal, and the message that came to a page that says yes to all."""
    handed_on = []
    answers = []

    async def page(scope, receive, send):
        got = (await receive())["body"]
        handed_on.append(json.loads(got) if scope["path"] == JOIN else got)
        lengths = [int(value) for name, value in scope["headers"] if name == b"content-length"]
        assert lengths == [len(got)]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    received = [{"type": "http.request", "body": body}]
    if path == JOIN:  # as it comes by the network: in parts
        parts = ((body[:7], True), (body[7:], False))
        received = [{"type": "http.request", "body": part, "more_body": more} for part, more in parts]

    async def receive():
        return received.pop(0)

    async def send(said):
        answers.append(said)

    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(Guard(page, cache=cache, inputs={0: 1, 1: 0})(scope, receive, send))
    start, said = answers
    assert dict(start["headers"])[b"content-security-policy"].startswith(b"default-src 'self';")
    line = json.loads(said["body"]).get("detail")
    return start["status"], line, handed_on[0] if handed_on else None


def test_gradio_hands_out_what_was_uploaded_and_nothing_else(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")  # and put back after the test
    private = tmp_path / "private.png"
    private.write_bytes(b"private")
    restored = []

    def restore(task, progress):
        restored.append(task.source.read_bytes())
        raise DataError(f"it came to {task.source.name}")

    tasks = Tasks(restore)
    settings = {"max_megabytes": 1, "max_pixels": 100, "host": "127.0.0.1"}
    app = _app(tasks, "about", settings, tmp_path / "page", [])
    ended = threading.Event()
    worker = threading.Thread(target=tasks.carry_out, args=(ended.is_set,))
    worker.start()
    (tmp_path / "page" / "cache").mkdir(parents=True)
    try:
        with TestClient(app, base_url="http://127.0.0.1") as client:

            def told(path: str, *, to: TestClient = client, session: str = "s") -> str:
                body = message({"path": path, "meta": FILE}, session_hash=session)
                reply = to.post(JOIN, content=body, headers={"Content-Type": "application/json"})
                if reply.status_code != 200:
                    return f"{reply.status_code} {reply.json()['detail']}"
                return to.get(f"/gradio_api/queue/data?session_hash={session}").text

            refused = "403 not a photo that was uploaded to this page"
            for path in (str(private), "/dev/zero", "/etc/passwd", "http://127.0.0.1:1/private.png"):
                assert told(path) == refused
                assert client.get(f"/gradio_api/file={path}").status_code == 403
            assert restored == []
            assert [path for path in (tmp_path / "page" / "cache").rglob("*") if path.is_file()] == []
            uploaded = client.post("/gradio_api/upload", files={"files": ("photo.png", b"photo")}).json()
            assert "it came to photo.png" in told(uploaded[0])
            assert restored == [b"photo"]
            assert client.get(f"/gradio_api/file={uploaded[0]}").content == b"photo"
            assert capsys.readouterr().err == ""
            # Were there no guard, Gradio itself would ask for a file whether it was uploaded.
            (mounted,) = (route.app for route in app.routes if hasattr(route, "app"))
            bare = TestClient(mounted, base_url="http://127.0.0.1")
            bare.portal = client.portal
            assert "was not uploaded by a user" in told(str(private), to=bare, session="t")
            assert restored == [b"photo"]
    finally:
        ended.set()
        worker.join()
