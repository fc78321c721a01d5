"""The command: flags, environment, logs, and a graceful end."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from florence_onnx.cli import serve as command
from florence_onnx.cli.program import main
from tests.helpers.service import asking, encoded, png, process, until
from tests.helpers.tiny import TINY

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")


def post(url: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    data = json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310
        f"{url}/v1/answer", data, {"Content-Type": "application/json", **headers}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_service_from_its_start_to_its_end() -> None:
    """Set up by the environment, its log without a user's words, and accepted requests answered."""
    secret, key = "a very secret car", "k1"
    variables = {"FLORENCE_ONNX_SERVE_MODEL": f"one={TINY}", "FLORENCE_ONNX_SERVE_API_KEY": key}
    body = asking(png(7), task="caption_to_phrase_grounding", text=secret)
    with process("--max-queue", "9", **variables) as served:
        until(lambda: get(f"{served.url}/readyz") == 200)
        given = {"Authorization": f"Bearer {key}"}
        assert post(served.url, body, **given, **{"X-Request-ID": "id-1"})["task"]
        assert get(f"{served.url}/{secret.replace(' ', '')}") == 401
        long = asking(options={"min_new_tokens": 100, "max_new_tokens": 100})
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(post, served.url, long, **given) for _ in range(3)]
            until(lambda: get(f"{served.url}/healthz") == 200)
            # What has been sent is accepted or refused as a whole.
            served.process.send_signal(signal.SIGTERM)
            done = [one.exception() or one.result() for one in waiting]
        assert served.end() == 0
    for one in done:
        assert isinstance(one, urllib.error.URLError) or len(one["generated"]) > 100  # type: ignore[index]
    text = json.dumps(served.log)
    for part in (secret, secret.replace(" ", ""), key, encoded(png(7))[:40]):
        assert part not in text
    requests = [line for line in served.log if line["event"] == "request"]
    assert {"id-1"} < {line["request"] for line in requests}
    first = next(line for line in requests if line["request"] == "id-1")
    assert (first["route"], first["status"], first["method"]) == ("/v1/answer", 200, "POST")
    assert first["bytes"] == len(json.dumps(body))


OPENING_FOR_EVER = """
import sys, threading
from florence_onnx.cli import serve

serve.warmed_up = lambda source, arguments: threading.Event().wait()
from florence_onnx.cli.program import main

sys.exit(main(["serve", "--model", "demo", "--port", "0"]))
"""
"""Runs the command with a model whose opening, such as a download, takes for ever."""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("event", ["listening", "Application startup complete."])
def test_a_stop_while_a_model_is_opened(event: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OPENING_FOR_EVER], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        while json.loads(process.stdout.readline())["event"] != event:
            pass
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()


def ask(connection: socket.socket) -> bytes:
    """The head of the answer to what was sent."""
    connection.settimeout(60)
    return connection.recv(65536)


HEAD = b"POST /v1/answer HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.mark.skipif(sys.platform == "win32", reason="it counts files differently")
def test_clients_that_do_not_go_on() -> None:
    """Uploads that stop, and a thousand connections that say nothing, keep nobody else waiting.

    When they have gone, nothing of them is left.
    """
    with process("--model", str(TINY), "--timeout", "2", "--max-queue", "5") as served:
        until(lambda: get(f"{served.url}/readyz") == 200)
        assert post(served.url, asking())["task"] == "<OD>"
        files = Path(f"/proc/{served.process.pid}/fd")
        before = len(list(files.glob("*")))
        address = ("127.0.0.1", int(served.url.rpartition(":")[2]))
        with ExitStack() as stack:
            for _ in range(1000):
                stack.enter_context(socket.create_connection(address))
            slow = [stack.enter_context(socket.create_connection(address)) for _ in range(3)]
            for connection in slow:
                connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
            gone = stack.enter_context(socket.create_connection(address))
            gone.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
            gone.close()
            assert post(served.url, asking())["task"] == "<OD>"
            for connection in slow:
                assert b" 408 " in ask(connection).splitlines()[0]
            odd = stack.enter_context(socket.create_connection(address))
            odd.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
            assert b" 400 " in ask(odd).splitlines()[0]
            if files.is_dir():  # On Linux.
                assert len(list(files.glob("*"))) > before + 900
        assert post(served.url, asking())["task"] == "<OD>"
        until(lambda: len(list(files.glob("*"))) <= before)


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (("--port", "x"), {}, "--port"),
        (("--port", "65536"), {}, "'65536' is not a port"),
        (("--host", ""), {}, "--host: it is empty"),
        (("--timeout", "0"), {}, "--timeout: it must be more than 0"),
        (("--api-key", ""), {}, "--api-key: a key has visible ASCII"),
        (("--api-key", "clé"), {}, "--api-key: a key has visible ASCII"),
        ((), {"FLORENCE_ONNX_SERVE_API_KEY": " , "}, "API_KEY: there is no value in ' , '"),
        ((), {"FLORENCE_ONNX_SERVE_API_KEY": "a b"}, "API_KEY: a key has visible ASCII"),
        ((), {"FLORENCE_ONNX_SERVE_PORT": "-1"}, "PORT: '-1' is not a port"),
        ((), {"FLORENCE_ONNX_SERVE_PORT": "x"}, "FLORENCE_ONNX_SERVE_PORT: 'x'"),
        ((), {"FLORENCE_ONNX_SERVE_IDLE": "-1"}, "FLORENCE_ONNX_SERVE_IDLE: '-1'"),
        ((), {"FLORENCE_ONNX_SERVE_LOCAL_FILES_ONLY": "odd"}, "LOCAL_FILES_ONLY is 'odd'"),
        (("--model", "a=demo", "--model", "a=demo"), {}, "two models are called 'a'"),
        (("--model", "=demo"), {}, "NAME=MODEL"),
    ],
)
def test_wrong_flags_end_with_one_line(
    arguments: tuple[str, ...],
    variables: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FLORENCE_ONNX_MAX_PICTURE_MIB", "512")  # The command sets it.
    with suppress(SystemExit):
        assert main(["serve", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ("0.0.0.0", 9, 5.0)),  # noqa: S104
        # What is given counts, also where it is the default.
        (("--host", "127.0.0.1", "--port", "8000", "--timeout", "60"), ("127.0.0.1", 8000, 60.0)),
    ],
)
def test_flags_count_more_than_the_environment(
    arguments: tuple[str, ...],
    expected: tuple[str, int, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(command, "serve", lambda make_app, *given: found.extend(given))
    monkeypatch.setattr(command, "write_logs", lambda: None)
    monkeypatch.setenv("FLORENCE_ONNX_MAX_PICTURE_MIB", "512")  # The command sets it.
    for name, value in (("HOST", "0.0.0.0"), ("PORT", "9"), ("TIMEOUT", "5")):  # noqa: S104
        monkeypatch.setenv(f"FLORENCE_ONNX_SERVE_{name}", value)
    assert main(["serve", *arguments]) == 0
    assert tuple(found) == expected


def test_a_port_that_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLORENCE_ONNX_MAX_PICTURE_MIB", "512")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_help_tells_of_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    assert "FLORENCE_ONNX_SERVE_MAX_QUEUE" in capsys.readouterr().out
