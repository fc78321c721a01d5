"""Export of a checkpoint to a model folder. The caller decides how the graphs are made."""

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
"""Precision -> size of its graphs as a share of the size of the float32 graphs, rounded up."""
_BESIDE = 6_000_000
"""Bytes of the graphs without weights and of the files beside the graphs, rounded up."""


class Steps:
    """Progress of an export: messages, and the seconds of every step."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self.progress = progress

    @contextmanager
    def step(self, name: str, message: str) -> Iterator[None]:
        """Times a block; ``message`` is shown before the block runs."""
        self.progress(message)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


WriteGraphs = Callable[[Checkpoint, Path, Steps], dict[str, Any]]
"""Function that writes the float32 graphs of a checkpoint to a folder, and returns entries for the
report: the ``versions`` of the packages that made the graphs, and more."""
AddPrecisions = Callable[[Path, Sequence[str], Progress], dict[str, Any]]
"""Function that makes precisions from the float32 graphs in a folder; returns report entries."""


@dataclass(frozen=True)
class Making:
    """Functions that make the graphs of an export."""

    write_graphs: WriteGraphs
    """Function that makes the float32 graphs."""
    add_precisions: AddPrecisions | None
    """Function that makes the other precisions."""
    steps: Steps
    """Progress of the export."""


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
        source: Local folder or hub id, in Microsoft's or transformers' format.
        out: Model folder to write. The folder appears whole or not at all.
        write_graphs: Makes the float32 graphs.
        add_precisions: Makes other precisions from the float32 graphs; needed for such precisions.
        precisions: Precisions to write, of `written_precisions`.
        access: Which state of a hub repository is wanted.
        force: Whether the files of an earlier export in ``out`` are replaced. Other files stay.
        base: Folder or hub id of an adapter's base model, in place of the model that the adapter
            names.
        companions: Folder or hub id of the model whose config.json, tokenizer and preprocessing are
            taken where the checkpoint has none.
        layout: Layout of the graphs that ``write_graphs`` and ``add_precisions`` make.
        progress: Called with a line of text at the start of every long step.

    Returns:
        The content of export_report.json.

    Raises:
        CheckpointError: The checkpoint cannot be read or is not a Florence-2.
        ValidationError: The graphs do not agree with the reference, or a precision is beyond its
            bounds.
        OutputExistsError: ``out`` exists and ``force`` is false, or ``out`` was not written by an
            export, or another file has the name of a file to write.
        PrecisionError: A precision is unknown.
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
            report = _export_into(folder, out, source, read, precisions, make, layout)
            write_report(folder / REPORT, report)
            return report
    except FlorenceError:
        raise
    except OSError as error:
        raise ExportError(f"exporting to {out} failed: {error}") from error


def written_precisions(layout: Layout) -> list[str]:
    """Precisions in which graphs of a layout can be written."""
    return [*contract.PRECISIONS] if layout is SLOTS else [*contract.PRECISIONS, "q4f16"]


def check_precisions(precisions: Sequence[str], layout: Layout = SLOTS) -> None:
    """Refuses precisions that no export in a layout has.

    Raises:
        PrecisionError: A precision is not among `written_precisions`.
    """
    known = written_precisions(layout)
    unknown = [name for name in precisions if name not in known]
    if unknown:
        raise PrecisionError(f"unknown precision {unknown[0]!r}; choose from {', '.join(known)}")


def _export_into(
    folder: Path,
    out: Path,
    source: str | Path,
    read: Callable[[], Checkpoint],
    precisions: Sequence[str],
    make: Making,
    layout: Layout,
) -> dict[str, Any]:
    """Writes all files but the report; returns the report."""
    steps = make.steps
    with steps.step("read", f"reading {source}"):
        checkpoint = read()
        require_space(out, needed_bytes(checkpoint.config, precisions), "the export")
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
    """Estimates the bytes that an export writes, the float32 graphs always included.

    Args:
        config: Geometry of the checkpoint.
        precisions: Precisions to make.
    """
    shapes = key_maps.expected_shapes(config).values()
    fp32 = 4 * sum(math.prod(shape) for shape in shapes)
    return _BESIDE + int(fp32 * (1 + sum(SHARES[name] for name in set(precisions) - {"fp32"})))


def _files(folder: Path, precisions: Sequence[str], layout: Layout) -> list[Path]:
    """Files that the report itself lists. The entry of a precision lists the precision's files."""
    graphs = layout.graphs if "fp32" in precisions else ()
    parts = [part for graph in graphs for part in layout.parts(folder, graph, "fp32")]
    return [*(folder / name for name in contract.ASSETS), *parts]
