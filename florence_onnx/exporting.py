"""A checkpoint in, a model folder out; how its graphs are made is left to the caller."""

import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from florence_onnx.assets.browser import add_browser_config
from florence_onnx.assets.ownership import digests, replaced_files
from florence_onnx.assets.report import REPORT, write_report
from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.checkpoint import Checkpoint, read_checkpoint
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.engine import contract
from florence_onnx.engine.layouts import SLOTS, Layout
from florence_onnx.errors import ExportError, FlorenceError, PrecisionError
from florence_onnx.examining import examine
from florence_onnx.hub import ANYHOW, Access, commit_of
from florence_onnx.resolver import local_folder
from florence_onnx.space import require_space
from florence_onnx.staging import staged_folder

Progress = Callable[[str], None]

SHARES = {"fp16": 0.5, "q8": 0.35, "q4": 0.3, "q4f16": 0.3}
"""The size of the graphs of a precision as a share of that of the float32 ones, rounded up."""
_BESIDE = 6_000_000
"""Bytes of the graphs without weights and of the files beside them, rounded up."""


class Steps:
    """Tells what is being done, and notes how long it took."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self.progress = progress

    @contextmanager
    def step(self, name: str, message: str) -> Iterator[None]:
        """Times a block; ``message`` is shown before it runs."""
        self.progress(message)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


WriteGraphs = Callable[[Checkpoint, Path, Steps], dict[str, Any]]
"""Writes the float32 graphs of a checkpoint to a folder, and returns what the report says of
them: the ``versions`` of the packages that made them, and more."""
AddPrecisions = Callable[[Path, Sequence[str], Progress], dict[str, Any]]
"""Makes other precisions from the float32 graphs in a folder, and returns their reports."""


@dataclass(frozen=True)
class Making:
    """The way in which the graphs of an export are made."""

    write_graphs: WriteGraphs
    """Makes the float32 ones."""
    add_precisions: AddPrecisions | None
    """Makes others from these."""
    steps: Steps
    """Tells the user, and notes times."""


def export(
    source: str | Path,
    out: Path,
    write_graphs: WriteGraphs,
    *,
    add_precisions: AddPrecisions | None = None,
    precisions: Sequence[str] = ("fp32",),
    access: Access = ANYHOW,
    force: bool = False,
    base: str | None = None,
    companions: str | None = None,
    layout: Layout = SLOTS,
    progress: Progress = lambda message: None,
) -> dict[str, Any]:
    """Exports a Florence-2 checkpoint to a folder that `florence_onnx` runs.

    Args:
        source: A local folder or hub id, in Microsoft's or transformers' format.
        out: The model folder to write; it appears whole or not at all.
        write_graphs: How the float32 graphs are made.
        add_precisions: How other precisions are made from them; needed where there are some.
        precisions: Precisions to write, of `written_precisions`.
        access: Which state of a hub repository is wanted.
        force: Whether the files of an export that is in ``out`` are replaced; other files stay.
        base: Folder or hub id of an adapter's base model, in place of the one that it names.
        companions: Folder or hub id of the model whose config.json, tokenizer and preprocessing are
            taken where the checkpoint has none.
        layout: Which graphs ``write_graphs`` and ``add_precisions`` make.
        progress: Called with a line of text at the start of every long step.

    Returns:
        The content of export_report.json.

    Raises:
        CheckpointError: The checkpoint cannot be read or is not a Florence-2.
        ValidationError: The graphs do not agree with the reference, or a precision is beyond its
            bounds.
        OutputExistsError: ``out`` exists and ``force`` is false, or no export has written it, or
            something else has the name of one of its files.
        PrecisionError: An unknown precision.
        DiskSpaceError: The disk has too little free space.
        ExportError: The disk is full, or the folder cannot be written, or another process is
            writing there.
    """
    check_precisions(precisions, layout)
    make = Making(write_graphs, add_precisions, Steps(progress))
    files = [file for p in precisions for file in layout.files((), p).values()]
    replaced = partial(replaced_files, source=source, graphs=files, force=force)
    try:
        with staged_folder(out, replaced) as folder:
            read = partial(read_checkpoint, source, access, base, companions)
            report = _export_into(folder, source, read, precisions, make, layout)
            write_report(folder / REPORT, report)
            return report
    except FlorenceError:
        raise
    except OSError as error:
        raise ExportError(f"exporting to {out} failed: {error}") from error


def written_precisions(layout: Layout) -> list[str]:
    """The precisions in which graphs of a layout can be written."""
    return [*contract.PRECISIONS] if layout is SLOTS else [*contract.PRECISIONS, "q4f16"]


def check_precisions(precisions: Sequence[str], layout: Layout = SLOTS) -> None:
    """Refuses precisions that no export in a layout has.

    Raises:
        PrecisionError: Not all are of `written_precisions`.
    """
    known = written_precisions(layout)
    unknown = [name for name in precisions if name not in known]
    if unknown:
        raise PrecisionError(f"unknown precision {unknown[0]!r}; choose from {', '.join(known)}")


def _export_into(
    folder: Path,
    source: str | Path,
    read: Callable[[], Checkpoint],
    precisions: Sequence[str],
    make: Making,
    layout: Layout,
) -> dict[str, Any]:
    """Writes all files but the report, which it returns."""
    steps = make.steps
    with steps.step("read", f"reading {source}"):
        checkpoint = read()
        require_space(folder, needed_bytes(checkpoint.config, precisions), "the export")
        examination = examine(checkpoint, folder)
        for refusal in examination.refusals:
            raise refusal
        repairs = list(examination.notes)
    for repair in repairs:
        steps.progress(f"note: {repair}")
    graphs = make.write_graphs(checkpoint, folder, steps)
    others = make.add_precisions(folder, precisions, steps.progress) if make.add_precisions else {}
    if layout is not SLOTS:
        add_browser_config(folder, precisions)
    versions = {
        "python": platform.python_version(),
        "florence-onnx": metadata.version("florence-onnx"),
        **graphs.pop("versions"),
    }
    read_from = checkpoint.adapter.folder if checkpoint.adapter else checkpoint.folder
    return {
        "checkpoint": str(source),
        "commit": commit_of(str(source), read_from) if local_folder(source) is None else None,
        "contract": contract.VERSION,
        "format": checkpoint.format,
        "repairs": repairs,
        "parameters": checkpoint.parameters,
        "versions": versions,
        "platform": platform.platform(),
        "seconds": steps.seconds,
        "bytes": {path.name: path.stat().st_size for path in sorted(folder.glob("onnx/*"))},
        **graphs,
        "precisions": others,
        "files": digests(folder, _files(folder, precisions, layout)),
    }


def needed_bytes(config: ModelConfig, precisions: Sequence[str] = ("fp32",)) -> int:
    """Estimates the bytes that an export writes, those of the float32 graphs always included.

    Args:
        config: The checkpoint's geometry.
        precisions: What is made.
    """
    shapes = key_maps.expected_shapes(config).values()
    fp32 = 4 * sum(math.prod(shape) for shape in shapes)
    return _BESIDE + int(fp32 * (1 + sum(SHARES[name] for name in set(precisions) - {"fp32"})))


def _files(folder: Path, precisions: Sequence[str], layout: Layout) -> list[Path]:
    """Files that the report lists itself; those of other precisions are in their entries."""
    graphs = layout.graphs if "fp32" in precisions else ()
    parts = [part for graph in graphs for part in layout.parts(folder, graph, "fp32")]
    return [*(folder / name for name in contract.ASSETS), *parts]
