"""Checkpoint for the benchmarks: random weights, and a tokenizer of the released size.

The language model has random weights as in the tests, so that beams compete and equal tokens mean
equal computations. The vision encoder has the random weights of transformers. That of the tests
amplifies rounding, so that its features differ by a seventh in PyTorch's bfloat16. Everything is
made once and kept. The name of a folder depends on the code that made the folder; folders of older
code may be deleted.
"""

import argparse
import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.common import ROOT, BenchmarkError, Setup, progress

MODELS = ("base", "large", "tiny")
"""Released geometries, and a small geometry for tests."""
SEED = 0
RELEASED_BART_SIZE = 50265
"""Number of tokens of the released tokenizer without the tokens that Florence-2 adds."""


def prepare(arguments: argparse.Namespace) -> Setup:
    """Makes or finds the models that the sides of a benchmark run.

    Args:
        arguments: Arguments, parsed by `common.make_parser`.

    Raises:
        BenchmarkError: ``--model`` is neither a name of `MODELS` nor the folder of a checkpoint.
    """
    model, work = arguments.model, arguments.work
    if model in MODELS:
        home = random_checkpoint(model, work)
        checkpoint = home / "checkpoint"
    elif (Path(model) / "config.json").is_file():
        checkpoint, home = Path(model), work / Path(model).name
    else:
        raise BenchmarkError(f"{model!r} is none of {', '.join(MODELS)} nor a checkpoint's folder")
    exported = _find_export(checkpoint, home, arguments.precision)
    return Setup(checkpoint, exported, home, arguments.provider, arguments.threads)


def random_checkpoint(model: str, work: Path) -> Path:
    """Makes a folder below ``work`` that holds a checkpoint of `MODELS` as ``checkpoint``."""
    helpers = ROOT / "tests" / "helpers"
    names = ("checkpoints", "random_models", "tokenizers")
    sources = [Path(__file__), *(helpers / f"{name}.py" for name in names)]
    return kept(work, model, sources, lambda home: _make(model, home))


def kept(parent: Path, name: str, sources: Iterable[Path], make: Callable[[Path], None]) -> Path:
    """Makes a folder once for the present code.

    Args:
        parent: Folder that the new folder is in.
        name: Beginning of the new folder's name. The rest depends on ``sources``.
        sources: Code that decides the content of the folder.
        make: Function that fills an empty folder.
    """
    from florence_onnx.staging import staged_folder

    folder = parent / f"{name}-{_digest(sources)}"
    if not folder.is_dir():
        progress(f"making {folder}")
        with staged_folder(folder) as staging:
            make(staging)
    return folder


def _find_export(checkpoint: Path, home: Path, precisions: Sequence[str]) -> Path:
    from florence_onnx import exporting
    from florence_onnx.checkpoints.checkpoint import read_config
    from florence_onnx.engine.present import present_precisions
    from florence_onnx.skeletons.filling import find_skeleton
    from florence_onnx.skeletons.writing import write_graphs
    from florence_onnx_export.exporter import export

    package = ROOT / "export" / "florence_onnx_export"
    runtime = ROOT / "florence_onnx"
    sources = [
        *package.glob("*.py"),
        *(
            path
            for part in ("graphs", "modules", "quantization")
            for path in package.glob(f"{part}/*.py")
        ),
        *(path for part in ("assets", "checkpoints") for path in runtime.glob(f"{part}/*.py")),
        runtime / "engine" / "contract.py",
    ]
    out = home / f"export-{_digest(sources)}"
    present = present_precisions(out)
    if set(precisions) - set(present):
        wanted = sorted({*present, *precisions})
        if wanted == ["fp32"] and find_skeleton(read_config(checkpoint)):  # with less memory
            exporting.export(checkpoint, out, write_graphs, force=True, progress=progress)
        else:
            export(checkpoint, out, wanted, force=True, progress=progress)
    return out


def _make(model: str, home: Path) -> None:
    from tests.helpers.checkpoints import GEOMETRY, save_native
    from tests.helpers.random_models import BASE, LARGE

    tiny = dataclasses.replace(GEOMETRY, max_positions=1024)
    geometry = {"base": BASE, "large": LARGE, "tiny": tiny}[model]
    folder = home / "checkpoint"
    save_native(_draw(geometry), folder, image_size=geometry.image_size)
    if model != "tiny":
        _make_tokenizer(folder / "tokenizer.json")


def _draw(geometry: Any) -> Any:
    """Makes a model of transformers with random weights."""
    import torch
    from transformers import Florence2ForConditionalGeneration

    from tests.helpers.random_models import make_model

    model = make_model(geometry, SEED)
    torch.manual_seed(SEED)
    usual = Florence2ForConditionalGeneration(geometry.config()).model
    for part in ("vision_tower", "multi_modal_projector"):
        getattr(model.model, part).load_state_dict(getattr(usual, part).state_dict())
    return model


def _make_tokenizer(path: Path) -> None:
    """Replaces the tests' small tokenizer by one of the released size, with invented words."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

    from florence_onnx.files import write_whole
    from florence_onnx.tasks import Task
    from tests.helpers.tokenizers import EXTRA_TOKENS

    small = Tokenizer.from_file(str(path))
    tokenizer = Tokenizer(models.BPE())
    for part in ("pre_tokenizer", "decoder", "post_processor"):
        setattr(tokenizer, part, getattr(small, part))
    special = [AddedToken(token, normalized=True) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    trainer = trainers.BpeTrainer(
        vocab_size=RELEASED_BART_SIZE - 1,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = [task.prompt for task in Task]
    tokenizer.train_from_iterator([*prompts * 50, " ".join(_words(60_000))], trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=True)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in EXTRA_TOKENS])
    write_whole(path, tokenizer.to_str(pretty=True))


def _words(count: int) -> Iterator[str]:
    generator = random.Random(SEED)  # noqa: S311
    syllables = [a + b + c for a in "bcdfghjklmnprstvwz" for b in "aeiou" for c in ("", *"nrsl")]
    for _ in range(count):
        yield "".join(generator.choices(syllables, k=generator.choice((1, 2, 2, 3))))


def _digest(sources: Iterable[Path]) -> str:
    content = b"".join(path.read_bytes() for path in sorted(sources))
    return hashlib.sha256(content).hexdigest()[:8]
