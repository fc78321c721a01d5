"""Checks that a provider computes what the CPU computes. A failed check does not stop others."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gpu.models import add_half
from benchmarks.harness.common import CPU, Setup, progress
from florence_onnx import Florence2, Request, Result, Task
from florence_onnx.assets.reading import Assets
from florence_onnx.engine.providers import first_line
from florence_onnx.engine.sessions import open_graphs
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.resolver import DEMO
from florence_onnx_export.quantization import fidelity
from florence_onnx_export.quantization.bounds import BOUNDS
from florence_onnx_export.scenes.answers import ask
from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.scene import sample_scene

PICTURES = 3
"""Number of drawn pictures for the requests of every task."""
CASES = 24
"""Number of searches that are compared with transformers."""
PARITY_MODELS = (("square", 0), ("padded", 0))
"""Geometry and seed of the models for these searches. An export takes about a minute."""
FEATURE_ERROR = 1e-3
"""Largest difference of a feature, of numbers around 1, by rounding in another order."""
MOST_TOKENS = 100
"""Length of the compared answers: a random model ends none before its last position."""


@dataclass(frozen=True)
class Check:
    """Name of a check, and its outcome."""

    name: str
    passed: bool
    detail: str


def run_checks(setup: Setup) -> Iterator[Check]:
    """Runs all checks: the demo model, a small random model, and searches beside transformers.

    Args:
        setup: The small random model.

    Yields:
        Every check, when it is made.
    """
    with tempfile.TemporaryDirectory() as folder:
        demo = Path(shutil.copytree(DEMO, Path(folder) / "demo"))
        add_half(demo)
        checks = {
            "the provider runs every graph": lambda: _placed(setup),
            "demo, features of 1 to 9 pictures": lambda: _batched_features(demo, setup),
            "demo, fp32 answers": lambda: _same_answers(demo, setup),
            "demo, fp16 errors": lambda: _half_errors(demo, setup),
            "demo, fp16 answers": lambda: _half_answers(demo, setup),
            "demo, a batch of all tasks": lambda: _batched_answers(demo, setup),
            "random model, fp32 answers": lambda: _same_answers(setup.exported, setup),
            "random model, a cache that grows": lambda: _long_answers(setup),
            "searches beside transformers": lambda: _parity(setup),
        }
        for name, check in checks.items():
            yield _carried_out(name, check)


def _carried_out(name: str, check: Callable[[], tuple[bool, str]]) -> Check:
    progress(f"checking: {name}")
    try:
        return Check(name, *check())
    except Exception as error:  # Any error on a new machine is a result.
        return Check(name, False, f"{type(error).__name__}: {first_line(error)}")


def _open(folder: Path, precision: str, setup: Setup) -> Florence2:
    return Florence2.load(
        folder, precision=precision, providers=setup.providers, threads=setup.threads
    )


def _on_cpu(folder: Path, setup: Setup) -> Florence2:
    return Florence2.load(folder, precision="fp32", providers=[CPU], threads=setup.threads)


def _placed(setup: Setup) -> tuple[bool, str]:
    placed = _open(setup.exported, "fp32", setup).providers
    return all(names[0] == setup.provider for names in placed.values()), str(placed)


def _batched_features(folder: Path, setup: Setup) -> tuple[bool, str]:
    """Compares the image features of batches with those of the CPU, picture by picture."""
    height, width = Assets.read(folder).preprocessor.size
    shape = (9, 3, height, width)
    pixels = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    alone = [_on_cpu(folder, setup).graphs.image_features(one[None])[0] for one in pixels]
    graphs = _open(folder, "fp32", setup).graphs
    errors = {
        count: float(np.abs(graphs.image_features(pixels[:count]) - alone[:count]).max())
        for count in range(1, len(pixels) + 1)
    }
    wrong = [count for count, error in errors.items() if not error <= FEATURE_ERROR]
    return (
        not wrong,
        f"largest error {max(errors.values()):.2g}; wrong numbers of pictures: {wrong}",
    )


def _requests() -> Iterator[Request]:
    for seed in range(PICTURES):
        scene = sample_scene(seed)
        picture, rng = np.asarray(draw(scene)), np.random.default_rng(seed)
        for task in Task:
            asked = ask(scene, task, rng)
            yield Request(picture, task, text=asked.text, region=asked.region)


def _answers(model: Florence2, num_beams: int, batch_size: int = 1) -> list[Result]:
    return model.run(
        list(_requests()), batch_size=batch_size, num_beams=num_beams, max_new_tokens=MOST_TOKENS
    )


def _equal(ours: Iterable[Result], theirs: Iterable[Result]) -> tuple[bool, str]:
    pairs = [(a.token_ids, b.token_ids) for a, b in zip(ours, theirs, strict=True)]
    same = sum(a == b for a, b in pairs)
    return same == len(pairs), f"{same} of {len(pairs)} answers have the tokens of the CPU"


def _same_answers(folder: Path, setup: Setup) -> tuple[bool, str]:
    """Compares answers of greedy search and of three beams."""
    model, cpu = _open(folder, "fp32", setup), _on_cpu(folder, setup)
    found, wanted = [], []
    for beams in (1, 3):
        found += _answers(model, num_beams=beams)
        wanted += _answers(cpu, num_beams=beams)
    return _equal(found, wanted)


def _batched_answers(folder: Path, setup: Setup) -> tuple[bool, str]:
    """Compares batches in which answers end at different lengths, so that rows leave."""
    model, cpu = _open(folder, "fp32", setup), _on_cpu(folder, setup)
    return _equal(_answers(model, batch_size=15, num_beams=3), _answers(cpu, num_beams=3))


def _long_answers(setup: Setup) -> tuple[bool, str]:
    """Compares answers of 200 tokens, for which the cache gets more slots."""
    model, cpu = _open(setup.exported, "fp32", setup), _on_cpu(setup.exported, setup)
    request = next(_requests())
    length: GenerationOptions = {"num_beams": 3, "min_new_tokens": 200, "max_new_tokens": 200}
    return _equal(model.run([request], **length), cpu.run([request], **length))


def _half_errors(folder: Path, setup: Setup) -> tuple[bool, str]:
    """Measures the errors of float16 on the provider against float32 on the CPU."""
    assets = Assets.read(folder)
    requests = fidelity.drawn_requests(assets, range(PICTURES))
    exact = fidelity.answer(open_graphs(folder, "fp32", [CPU]), assets, requests)
    half = open_graphs(folder, "fp16", setup.providers)
    found = fidelity.answer(half, assets, requests, feed=exact.fed)
    errors = fidelity.compare(found, exact, assets.tokenizer.eos_token_id)
    bounds = BOUNDS["fp16"]
    passed = (
        errors.image_features <= bounds.image_features
        and errors.first_logits <= bounds.first_logits
    )
    return passed, (
        f"image features {errors.image_features:.3%} of {bounds.image_features:.0%}, first logits "
        f"{errors.first_logits:.3%} of {bounds.first_logits:.0%}, {errors.token_agreement:.1%} of "
        "the tokens equal"
    )


def _half_answers(folder: Path, setup: Setup) -> tuple[bool, str]:
    """Counts answers of float16 that equal float32; the check is the bound of the errors."""
    found = _answers(_open(folder, "fp16", setup), num_beams=3)
    same, detail = _equal(found, _answers(_on_cpu(folder, setup), num_beams=3))
    equal = int(detail.split()[0])
    return same or equal >= 0.8 * len(found), detail


def _parity(setup: Setup) -> tuple[bool, str]:
    """Runs the cases of tests/parity.py that need few models, whose exports are kept."""
    import torch

    from tests.helpers.onnx_runner import OnnxRunner
    from tests.helpers.parity import cases, compare

    torch.set_num_threads(1)  # More threads take longer for models this small.
    drawn = (c for c in cases(100 * CASES, 7) if (c.geometry.name, c.model_seed) in PARITY_MODELS)
    chosen = [case for case, _ in zip(drawn, range(CASES), strict=False)]
    report = compare(chosen, OnnxRunner(setup.home / "parity", setup.providers))
    for failure in report.failures:
        progress(failure)
    return not report.failures, (
        f"{report.requests} requests of {report.cases} cases: {len(report.failures)} differ, and "
        f"{len(report.excused)} within the reference's own rounding"
    )
