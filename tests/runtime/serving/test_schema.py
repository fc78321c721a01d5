"""Requests that schemathesis makes from the schema are answered as the schema says."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from florence_onnx.serving import examples
from tests.helpers.service import Process, client, process, until
from tests.helpers.tiny import TINY
from tests.runtime.serving.test_process import get

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")


def test_examples_of_the_documentation_are_answered() -> None:
    with client() as service:
        paths = service.get("/openapi.json").json()["paths"]
        sent = 0
        for path, operations in paths.items():
            content = operations.get("post", {}).get("requestBody", {}).get("content", {})
            for shown in content.get("application/json", {}).get("examples", {}).values():
                answer = service.post(path, json=shown["value"])
                assert answer.status_code == 200, answer.text
                sent += 1
        assert sent == len(examples.ANSWER) + len(examples.CHAT) + len(examples.LABELLING)


@pytest.fixture(scope="module")
def served() -> Iterator[Process]:
    pytest.importorskip("schemathesis")
    with process("--model", f"tiny={TINY}") as found:
        until(lambda: get(f"{found.url}/readyz") == 200)
        yield found


@pytest.mark.parametrize(
    "options",
    [
        # Examples have to be answered.
        ("--phases", "examples"),
        # Text of the right type need not be a picture, and is refused with status 422.
        ("--phases", "coverage,fuzzing", "--exclude-checks", "positive_data_acceptance"),
    ],
)
def test_the_schema(served: Process, options: tuple[str, ...], tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("st")
    run = subprocess.run(
        [program, "run", f"{served.url}/openapi.json", "--seed=1", "--max-examples=50", *options],
        cwd=tmp_path,  # It keeps files in the current folder.
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout
    assert served.process.poll() is None
