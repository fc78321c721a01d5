"""What is public, and what importing and answering need to have installed."""

import ast
import json
import pkgutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import florence_onnx
from florence_onnx import errors
from tests.helpers.tiny import TINY, run_python

BANNED = ("torch", "transformers", "onnx", "onnxscript", "optimum", "florence_onnx_export", "PIL")

BAN = """
import sys

class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BANNED:
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Ban())
"""

WALK_AND_ANSWER = """
import importlib, json, pkgutil
import numpy as np
import florence_onnx

names = [m.name for m in pkgutil.walk_packages(florence_onnx.__path__, "florence_onnx.")]
for name in names:
    importlib.import_module(name)
model = florence_onnx.Florence2.load(sys.argv[1])
image = np.arange(30 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(30, 40, 3)
result = model(image, "od", max_new_tokens=12)
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"modules": names, "text": result.generated, "loaded": loaded}))
"""

PLACES = {
    **dict.fromkeys(("torch", "transformers", "onnx", "onnxscript", "optimum"), ()),
    "florence_onnx_export": (),
    "onnxruntime": ("engine/",),
    "PIL": ("images/", "drawing/"),
}
"""Package -> where it may be imported, in functions too."""

ABOVE = ("answering", "streaming", "model", "annotate", "cli")
UNKNOWN = {
    "images/": ("engine", "generation", "assets", *ABOVE),
    "generation/": ("engine", "images", "assets", *ABOVE),
    "engine/": ("images", "assets", *ABOVE),
    "assets/": ABOVE,
    "checkpoints/": ("engine", "images", *ABOVE),
    "annotate/": ("engine", "cli"),
    "converting/": ("engine", "generation", "answering", "streaming", "model", "cli"),
}
"""Folder -> parts of the runtime that it does not import; docs/architecture.md tells them."""

IMPORT = """
import json, sys
import florence_onnx
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def output(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_public_names() -> None:
    exceptions = {
        name for name, value in vars(errors).items() if isinstance(value, type) and name[0] != "_"
    }
    assert "FlorenceError" in exceptions
    assert set(florence_onnx.__all__) == exceptions | {
        "AnswerKind",
        "CascadeResult",
        "Detection",
        "DetectionScores",
        "EncodedImage",
        "Failure",
        "Florence2",
        "GenerationOptions",
        "GenerationPolicy",
        "Prepared",
        "Request",
        "Result",
        "TASK_OPTIONS",
        "Task",
        "Tiles",
        "Token",
        "__version__",
        "parse_answer",
    }
    assert all(hasattr(florence_onnx, name) for name in florence_onnx.__all__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(florence_onnx.__file__).parent / "py.typed").is_file()


def test_every_module_and_an_answer_without_torch_and_pillow() -> None:
    program = f"BANNED = {BANNED!r}\n{BAN}{WALK_AND_ANSWER}"
    found = json.loads(output(run_python("-c", program, str(TINY))))
    expected = [m.name for m in pkgutil.walk_packages(florence_onnx.__path__, "florence_onnx.")]
    assert found["modules"] == expected
    assert {"florence_onnx.cli.program", "florence_onnx.cli.export"} < set(expected)
    assert found["text"].startswith("</s><s>")
    assert not set(BANNED) & set(found["loaded"])


@pytest.mark.parametrize("name", BANNED)
def test_the_ban_bans(name: str) -> None:
    result = run_python("-c", f"BANNED = {BANNED!r}\n{BAN}\nimport {name}")
    assert f"AssertionError: {name} is imported" in result.stderr


def test_importing_loads_nothing_heavy() -> None:
    heavy = {"onnxruntime", "tokenizers", "PIL", "huggingface_hub", "tqdm", *BANNED}
    loaded = set(json.loads(output(run_python("-c", IMPORT))))
    assert not heavy & loaded
    assert {"florence_onnx", "numpy"} <= loaded


def imported(source: str) -> set[str]:
    """The packages that a module imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_every_package_is_imported_in_its_place_only() -> None:
    root = Path(florence_onnx.__file__).parent
    seen: dict[str, set[str]] = {name: set() for name in PLACES}
    for path in root.rglob("*.py"):
        for name in imported(path.read_text(encoding="utf-8")) & PLACES.keys():
            seen[name].add(path.relative_to(root).as_posix())
    for name, places in PLACES.items():
        assert [path for path in sorted(seen[name]) if not path.startswith(places)] == []
        assert all(any(path.startswith(place) for path in seen[name]) for place in places)
    assert imported("def f():\n    from torch.nn import Linear\n    import PIL.Image") == {
        "torch",
        "PIL",
    }


def parts_imported(source: str) -> set[str]:
    """The parts of the runtime that a module imports, wherever it does: files and folders."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    inside = (name.split(".") for name in names)
    return {part[1] for part in inside if part[0] == "florence_onnx" and len(part) > 1}


@pytest.mark.parametrize(("folder", "unknown"), UNKNOWN.items())
def test_folders_know_nothing_of_what_is_above(folder: str, unknown: tuple[str, ...]) -> None:
    files = list((Path(florence_onnx.__file__).parent / folder).glob("*.py"))
    assert files
    for path in files:
        assert parts_imported(path.read_text(encoding="utf-8")) & set(unknown) == set(), path
    assert parts_imported("def f():\n    from florence_onnx.cli.run import x") == {"cli"}
    assert parts_imported("from florence_onnx import engine") == {"engine"}


def test_the_search_is_numpy_alone() -> None:
    files = list((Path(florence_onnx.__file__).parent / "generation").glob("*.py"))
    assert files
    for path in files:
        outside = imported(path.read_text(encoding="utf-8")) - set(sys.stdlib_module_names)
        assert outside <= {"florence_onnx", "numpy", "typing_extensions"}, path


def test_the_version_is_that_of_the_distribution() -> None:
    assert florence_onnx.__version__ == metadata.version("florence-onnx")
