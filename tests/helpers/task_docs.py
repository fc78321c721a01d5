"""docs/tasks.md and its pictures: ``python -m tests.helpers.task_docs`` asks the demo model."""

import io
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from florence_onnx.cli.program import main
from florence_onnx.tasks import AnswerKind, InputKind, Task
from tests.helpers.pages import DOCS

SCENE = "docs/scene.png"
DRAWN = "drawn.png"
"""The picture of detection, which is in the README too."""
PICTURES = "pictures"
"""The folder in docs/."""
_CAPTION = "A purple triangle and a pink circle."
_TRIANGLE = (60, 33, 150, 131)
_WORD = (218, 28, 308, 88)


@dataclass(frozen=True)
class Example:
    """A task and what is asked."""

    task: Task
    about: str
    """The answer in words."""
    text: str | None = None
    """The text that the task takes."""
    region: tuple[int, int, int, int] | None = None
    """The region that the task takes, in pixels."""

    @property
    def is_drawn(self) -> bool:
        """Whether there is something to draw."""
        return self.task.answer_kind is not AnswerKind.TEXT

    @property
    def picture(self) -> str:
        """The picture of the section, from docs/."""
        if self.task is Task.OD:
            return DRAWN
        if self.is_drawn or self.region:
            return f"{PICTURES}/{self.task.name.lower()}.png"
        return Path(SCENE).name

    @property
    def command(self) -> list[str]:
        """The command that asks."""
        name = self.task.name.lower()
        words = ["florence-onnx", "run", SCENE, "--task", name]
        if self.text:
            words += ["--text", self.text]
        if self.region:
            words += ["--region", ",".join(map(str, self.region))]
        words += ["--model", "demo"]
        return [*words, "--draw", f"{name}.png"] if self.is_drawn else words


EXAMPLES = (
    Example(Task.CAPTION, "The picture in a few words."),
    Example(Task.DETAILED_CAPTION, "The picture in a sentence or two."),
    Example(Task.MORE_DETAILED_CAPTION, "The picture in a paragraph."),
    Example(Task.OD, "Boxes around things, with their names."),
    Example(Task.DENSE_REGION_CAPTION, "Boxes, with a description of each."),
    Example(Task.REGION_PROPOSAL, "Boxes around whatever stands out, without names."),
    Example(
        Task.CAPTION_TO_PHRASE_GROUNDING,
        "Boxes for the phrases of a sentence.",
        text=_CAPTION,
    ),
    Example(
        Task.OPEN_VOCABULARY_DETECTION,
        "Boxes around what the text names, or polygons.",
        text="pink square",
    ),
    Example(
        Task.REFERRING_EXPRESSION_SEGMENTATION,
        "The outline of what the text names.",
        text="the green diamond",
    ),
    Example(Task.REGION_TO_SEGMENTATION, "The outline of what is in a region.", region=_TRIANGLE),
    Example(Task.REGION_TO_CATEGORY, "The name of what is in a region.", region=_TRIANGLE),
    Example(Task.REGION_TO_DESCRIPTION, "A description of a region.", region=_TRIANGLE),
    Example(Task.REGION_TO_OCR, "The text in a region.", region=_WORD),
    Example(Task.OCR, "All text in the picture."),
    Example(Task.OCR_WITH_REGION, "All text, each with the four corners around it."),
)

_HEAD = f"""# Tasks

Made by `python -m tests.helpers.task_docs`, which runs the commands below.

Every task, asked about one picture. The answers are those of the demo model, which is in the
package and knows only such drawn scenes; coordinates are pixels. Without `--model demo`, a released
model is fetched and asked.

In Python the same questions are calls of a model:

```python
from florence_onnx import Florence2, Task

model = Florence2.load("demo")
model("{SCENE}", Task.OD)
model("{SCENE}", "caption_to_phrase_grounding", "{_CAPTION}")
model("{SCENE}", "region_to_category", region={_TRIANGLE})
```

`--region` and `region=` are x1, y1, x2, y2 in pixels of the picture. [Answers](answers.md) tells of
scores, lists of allowed labels, large pictures, and two tasks at once. A fine-tune's own prompt is
`--prompt TEXT`, and `--answer boxes` says how its answer is read ([Python](python.md#prompts)).
"""
_TAKES = {
    InputKind.NONE: "",
    InputKind.TEXT: " Takes a text.",
    InputKind.REGION: " Takes a region.",
}


def write(folder: Path) -> str:
    """Asks everything in a folder, and makes the pictures in it; gives the page."""
    (folder / PICTURES).mkdir()
    (folder / "docs").mkdir()
    shutil.copy(DOCS / Path(SCENE).name, folder / SCENE)
    with _inside(folder):
        return "\n".join([_HEAD, *map(_section, EXAMPLES)])


def _section(example: Example) -> str:
    name = example.task.name.lower()
    out = io.StringIO()
    with redirect_stdout(out):
        status = main(example.command[1:])
    if status:
        raise ValueError(f"{shlex.join(example.command)} ended with {status}")
    if example.is_drawn:
        Path(f"{name}.png").rename(example.picture)
    elif example.region:
        _outline(example.region, Path(example.picture))
    return (
        f"## {name}\n\n{example.about}{_TAKES[example.task.input_kind]}\n\n"
        f"```bash\n{shlex.join(example.command)}\n```\n\n```console\n{out.getvalue()}```\n\n"
        f"![The picture, asked for {name}]({example.picture})\n"
    )


def _outline(region: tuple[int, int, int, int], path: Path) -> None:
    with Image.open(SCENE) as scene:
        shown = scene.convert("RGB")
    ImageDraw.Draw(shown).rectangle(region, outline=(213, 94, 0), width=2)
    shown.save(path)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        made = write(Path(scratch))
        shutil.rmtree(DOCS / PICTURES, ignore_errors=True)
        shutil.copytree(Path(scratch) / PICTURES, DOCS / PICTURES)
        shutil.copy(Path(scratch) / DRAWN, DOCS)
        (DOCS / "tasks.md").write_text(made, encoding="utf-8")
