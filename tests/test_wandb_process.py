"""What is found out about W&B's host before a run is begun on it."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from deblur_lab.wandb_process import first_line, probe, within


@pytest.fixture
def host():
    """Starts a host that gives one answer to everything; its address, and what it was asked."""
    servers = []

    def start(status: int, answer: str) -> tuple[str, list[tuple[str, str, str]]]:
        asked: list[tuple[str, str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                asked.append((self.path, self.headers.get("Authorization", ""), body))
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *args): ...

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_host_that_knows_the_account_can_be_used(host):
    url, asked = host(200, json.dumps({"data": {"viewer": {"id": "x"}}}))
    assert probe(url, "key", 5.0) is None
    ((path, authorization, body),) = asked
    assert path == "/graphql"
    assert authorization == "Basic YXBpOmtleQ=="  # api:key
    assert "viewer" in body


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (401, "", "refuses the API key"),
        (403, "", "refuses the API key"),
        (503, "", "answers HTTP 503"),
        (200, '{"data": {"viewer": null}}', "does not know the API key"),
        (200, "<html>log in to this network</html>", "does not answer as W&B does"),
        (200, "[]", "does not answer as W&B does"),
    ],
)
def test_what_speaks_against_a_host_is_said(host, status, answer, words):
    url, _ = host(status, answer)
    assert probe(url, "key", 5.0) == f"{url} {words}"


def test_other_credentials_than_a_key_are_for_wandb_to_judge(host):
    url, asked = host(401, "")
    assert probe(url, None, 5.0) is None
    assert asked[0][1] == ""


def test_no_host_is_waited_for_longer_than_was_said(monkeypatch):
    def never(*args):
        time.sleep(60)

    monkeypatch.setattr("deblur_lab.wandb_process._asked", never)  # as where no name server answers
    started = time.monotonic()
    assert probe("http://somewhere", "key", 0.1) == "http://somewhere does not answer within 0.1 s"
    assert time.monotonic() - started < 5


def test_what_cannot_be_reached_says_why():
    assert probe("http://127.0.0.1:9", "key", 5.0) == (
        "http://127.0.0.1:9 cannot be reached (Connection refused)"
    )


def test_work_within_a_time_gives_its_result_or_its_error():
    assert within(5.0, lambda: 3) == 3
    assert within(5.0, lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 // 0)
    with pytest.raises(TimeoutError, match=r"more than 0\.05 s"):
        within(0.05, lambda: time.sleep(60))


def test_errors_are_told_in_one_line():
    assert first_line(ValueError("\n one thing.\n another")) == "one thing"
    assert first_line(RuntimeError()) == "RuntimeError"
    assert first_line(ConnectionResetError("Connection lost")) == "its service has ended"
