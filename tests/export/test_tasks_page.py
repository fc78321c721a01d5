"""docs/tasks.md and its pictures are what the demo model answers."""

from pathlib import Path

import numpy as np
from PIL import Image

from florence_onnx import Task
from tests.helpers import task_docs
from tests.helpers.pages import DOCS, page


def test_the_page_is_what_the_model_answers(tmp_path: Path) -> None:
    assert task_docs.write(tmp_path) == page("tasks.md")
    pictures = {example.picture for example in task_docs.EXAMPLES}
    made = {path.name for path in (tmp_path / task_docs.PICTURES).iterdir()}
    assert made == {path.name for path in (DOCS / task_docs.PICTURES).iterdir()}
    for name in pictures - {"scene.png"}:
        with Image.open(tmp_path / name) as drawn, Image.open(DOCS / name) as kept:
            assert drawn.size == kept.size
            differ = np.asarray(drawn, np.int16) - np.asarray(kept, np.int16)
        # The last digit of a score may be another on another processor: under 60 pixels each, of
        # 83,000. A label that is not there any more is over 1,000.
        assert (abs(differ).max(axis=-1) > 32).mean() < 0.005, name


def test_every_task_is_on_the_page() -> None:
    assert sorted(example.task for example in task_docs.EXAMPLES) == sorted(Task)
