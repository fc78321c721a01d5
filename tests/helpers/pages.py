"""Pages of the documentation, whose commands and snippets tests run."""

import re
import shlex
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INSTALLERS = ("pip", "npm", "docker")
"""Programs of commands that are not run."""


def page(name: str) -> str:
    """The text of a page of docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The words of every command, but of those of `INSTALLERS`."""
    lines = [
        line for block in blocks(text, "bash") for line in block.replace("\\\n", "").splitlines()
    ]
    split = [shlex.split(line) for line in lines]
    return [words for words in split if words and words[0] not in INSTALLERS]


def run_snippet(snippet: str, name: str, variables: dict[str, object]) -> None:
    """Runs a Python snippet of a page, which adds its variables."""
    exec(compile(snippet, name, "exec"), variables)  # noqa: S102


def copy_docs(folder: Path) -> None:
    """Copies docs/ into a folder, with the scene and its drawing as the only pictures to ask."""
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("pictures", "demo.png"))
