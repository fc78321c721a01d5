"""A short run of ``tests/prove_grammar.py``: noise, and decoders with amplified random weights."""

import sys

import pytest

from florence_onnx.tasks import AnswerKind, Task
from tests import prove_grammar


def test_no_answer_breaks_its_grammar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["prove_grammar.py", "--answers", "256"])
    with pytest.raises(SystemExit) as ended:
        prove_grammar.main()
    *tasks, total = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert total.startswith("all: 0 of 256;")
    located = [task for task in Task if task.answer_kind is not AnswerKind.TEXT]
    assert len(tasks) == 2 * len(located)
    assert all(": 0 of 16 break" in line and not line.endswith(" 0") for line in tasks)
