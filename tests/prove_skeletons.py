"""Compares exports filled from skeletons with those that torch traces, file by file.

Usage: ``python tests/prove_skeletons.py [base] [large] [amplified] [--folder build/skeletons]``.
Random checkpoints of the released geometries are exported both ways, in every way in which
checkpoints are stored and with every size that may differ: all files must be equal byte for byte.
The filled model of the first then answers every task where torch, transformers and onnx cannot be
imported. A graph of the same shapes is traced once. ``base`` takes about 5 minutes and 6 GB of
memory, ``large`` 15 minutes and 14 GB. ``amplified`` exports a checkpoint of base whose decoder
amplifies rounding, with every check that the exporter makes. Exit status 1 if anything differed or
was refused.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Florence2ForConditionalGeneration

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # where Python puts the script's own folder instead

from florence_onnx import exporting  # noqa: E402
from florence_onnx.checkpoints.checkpoint import Checkpoint  # noqa: E402
from florence_onnx.engine import contract  # noqa: E402
from florence_onnx.errors import ValidationError  # noqa: E402
from florence_onnx.exporting import Steps  # noqa: E402
from florence_onnx.skeletons.filling import SKELETONS  # noqa: E402
from florence_onnx.skeletons.writing import write_graphs  # noqa: E402
from florence_onnx_export import exporter  # noqa: E402
from florence_onnx_export.graphs import tracing  # noqa: E402
from florence_onnx_export.graphs.specs import GraphSpec, build_specs  # noqa: E402
from florence_onnx_export.weights import torch_weights  # noqa: E402
from tests.helpers import without_torch  # noqa: E402
from tests.helpers.checkpoints import save_native, save_original  # noqa: E402
from tests.helpers.random_models import BASE, LARGE, Geometry, make_model  # noqa: E402
from tests.helpers.tiny import run_python  # noqa: E402

AMPLIFIED = "amplified"
GEOMETRIES = {geometry.name: geometry for geometry in (BASE, LARGE)}


@dataclass(frozen=True)
class Variation:
    """What may differ between checkpoints of one geometry."""

    save: Callable[..., Path]
    """Writes transformers' format or Microsoft's."""
    safetensors: bool
    dtype: torch.dtype
    shards: int
    vocabulary: int
    positions: int
    own_head: bool = False
    """Whether the head is a matrix of its own, not the embedding."""
    logits_bias: bool = False

    def __str__(self) -> str:
        shards = f"{self.shards} shards of " if self.shards > 1 else ""
        file = "safetensors" if self.safetensors else "pytorch_model.bin"
        head = "own" if self.own_head else "tied"
        bias = "a" if self.logits_bias else "no"
        return (
            f"{self.save.__name__.removeprefix('save_')}, {shards}{file}, "
            f"{str(self.dtype).removeprefix('torch.')}, {self.vocabulary} tokens, "
            f"{self.positions} positions, {head} head, {bias} bias"
        )


# Each value of each axis at least once, and sizes in pairs that let graphs be traced once.
VARIATIONS = (
    Variation(save_native, True, torch.float32, 1, 51328, 1024),
    Variation(save_original, False, torch.float16, 1, 51289, 4096),
    Variation(save_original, True, torch.float16, 3, 51290, 1024, own_head=True),
    Variation(save_original, False, torch.float32, 2, 51293, 4096, logits_bias=True),
    Variation(save_native, True, torch.bfloat16, 2, 51289, 1024, own_head=True, logits_bias=True),
    Variation(save_native, False, torch.bfloat16, 1, 51328, 1024, logits_bias=True),
)


def cut(
    whole: Florence2ForConditionalGeneration, geometry: Geometry, variation: Variation
) -> Florence2ForConditionalGeneration:
    """The model with fewer tokens and positions, whose tensors it shares."""
    vocabulary, positions = variation.vocabulary, variation.positions
    config = replace(geometry, vocab_size=vocabulary, max_positions=positions).config()
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(config)
    state = whole.state_dict()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    cuts = {
        name: state[name][: shape[0]] if shape else state[name] for name, shape in shapes.items()
    }
    model.load_state_dict(cuts, assign=True)
    model.tie_weights()
    return model.eval()


def save(
    whole: Florence2ForConditionalGeneration, geometry: Geometry, it: Variation, folder: Path
) -> Path:
    """Writes a checkpoint."""
    prefix = "language_model." if it.save is save_original else ""
    generator = torch.Generator().manual_seed(1)
    more: dict[str, Tensor] = {}
    if it.own_head:
        head = torch.randn((it.vocabulary, geometry.d_model), generator=generator) / 30
        more[f"{prefix}lm_head.weight"] = head
    if it.logits_bias:
        more[f"{prefix}final_logits_bias"] = torch.randn((1, it.vocabulary), generator=generator)
    model = cut(whole, geometry, it)
    size = geometry.image_size
    return it.save(
        model,
        folder,
        safetensors=it.safetensors,
        shards=it.shards,
        dtype=it.dtype,
        image_size=size,
        more=more,
    )


def remember_programs() -> None:
    """Has every graph of the same parameters' shapes traced once."""
    programs: dict[Any, torch.onnx.ONNXProgram] = {}
    trace = tracing.traced_program

    def traced_program(spec: GraphSpec) -> torch.onnx.ONNXProgram:
        key = spec.name, tuple((name, p.shape) for name, p in spec.module.named_parameters())
        if key not in programs:
            for other in [other for other in programs if other[0] == spec.name]:
                del programs[other]
            programs[key] = trace(spec)
        return programs[key]

    tracing.traced_program = traced_program


def trace_graphs(checkpoint: Checkpoint, folder: Path, steps: Steps) -> dict[str, Any]:
    """Writes the graphs as the exporter does, without its checks, which other tests make."""
    for spec in build_specs(checkpoint.config, torch_weights(checkpoint)):
        path = folder / contract.graph_file(spec.name, "fp32")
        path.parent.mkdir(exist_ok=True)
        tracing.trace(spec, path)
    return {"versions": {"torch": torch.__version__}}


def differences(checkpoint: Path, folder: Path) -> tuple[list[str], int]:
    """Names of the files that differ between the ways, and how many there are."""
    reports = {}
    for name, writer in (("filled", write_graphs), ("traced", trace_graphs)):
        reports[name] = exporting.export(checkpoint, folder / name, writer)["files"]
        shutil.rmtree(folder / "traced", ignore_errors=True)
    filled, traced = reports["filled"], reports["traced"]
    names = filled.keys() | traced.keys()
    return sorted(n for n in names if filled.get(n) != traced.get(n)), len(names)


def answers_without_torch(checkpoint: Path, folder: Path) -> bool:
    """Exports and answers where the exporter's packages cannot be imported."""
    result = run_python("-m", without_torch.__name__, str(SKELETONS), str(checkpoint), str(folder))
    print("without torch:", result.stdout, "" if result.returncode == 0 else result.stderr)
    return result.returncode == 0


def prove(geometry: Geometry, folder: Path) -> bool:
    """Prints a line for every variation; whether all are equal."""
    whole = make_model(replace(geometry, max_positions=4096), seed=11)
    remember_programs()
    good = True
    for variation in VARIATIONS:
        shutil.rmtree(folder, ignore_errors=True)
        start = time.perf_counter()
        checkpoint = save(whole, geometry, variation, folder / "checkpoint")
        different, files = differences(checkpoint, folder)
        outcome = f"differs: {', '.join(different)}" if different else f"{files} files equal"
        seconds = time.perf_counter() - start
        print(f"{geometry.name}: {variation}: {outcome} ({seconds:.0f} s)", flush=True)
        good = good and not different
        if variation == VARIATIONS[0]:
            good = answers_without_torch(checkpoint, folder / "again") and good
    shutil.rmtree(folder, ignore_errors=True)
    return good


def prove_amplified(folder: Path) -> bool:
    """Exports base with weights as transformers draws them, the decoder's matrices times six."""
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(11)
    model = Florence2ForConditionalGeneration(BASE.config()).eval()
    with torch.no_grad():
        for parameter in model.model.language_model.decoder.layers.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
    checkpoint = save_native(model, folder / "checkpoint", image_size=BASE.image_size)
    del model
    try:
        report = exporting.export(checkpoint, folder / "traced", exporter.trace_graphs)
    except ValidationError as error:
        print(f"{AMPLIFIED}: refused: {error}")
        return False
    finally:
        shutil.rmtree(folder / "traced", ignore_errors=True)
    modules = max(report["modules_against_transformers"].values())
    worst = max(report["graphs_against_pytorch"], key=lambda check: check["max_rel_diff"])
    print(
        f"{AMPLIFIED}: accepted: modules differ from transformers by {modules:.1e} in float64; "
        f"{worst['output']} of {worst['graph']} by {worst['max_rel_diff']:.1e} from PyTorch in "
        f"float64, and PyTorch in float32 by {worst['pytorch_rel_diff']:.1e}"
    )
    filled = exporting.export(checkpoint, folder / "filled", write_graphs)
    shutil.rmtree(folder)
    return bool(filled["files"] == report["files"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("geometries", nargs="*", help="base, large, amplified (default: all)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "skeletons")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.geometries or [*GEOMETRIES, AMPLIFIED]
    print(f"torch {torch.__version__}, onnxscript {metadata.version('onnxscript')}")
    equal = [
        prove_amplified(arguments.folder)
        if name == AMPLIFIED
        else prove(GEOMETRIES[name], arguments.folder)
        for name in names
    ]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
