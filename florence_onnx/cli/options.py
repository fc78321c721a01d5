"""Options that several commands share."""

import argparse
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from florence_onnx.engine import hub_contract
from florence_onnx.engine.precision import AUTO, Precision
from florence_onnx.engine.providers import OTHERS, Provider
from florence_onnx.errors import InputError
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.hub import Access
from florence_onnx.tasks import AnswerKind
from florence_onnx.tiling import Tiles

VARIABLE = "FLORENCE_ONNX_MODEL"
"""Environment variable with the model of commands without a model."""
_RELEASED = "florence-community/Florence-2-base-ft"


def default_model() -> str:
    """Finds the model of commands without a model."""
    return os.environ.get(VARIABLE) or _RELEASED


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the model, as an argument that may be left out."""
    parser.add_argument(
        "model",
        nargs="?",
        default=default_model(),
        metavar="MODEL",
        help=f"model folder, hub id, or demo {DEFAULT}",
    )


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Adds the model, as an option."""
    parser.add_argument(
        "--model", default=default_model(), help=f"model folder, hub id, or demo {DEFAULT}"
    )


DEFAULT = f"(default: {_RELEASED}, or what {VARIABLE} says)"
"""Text about the default model in the help of commands."""


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for text, and for the prompt of a fine-tune in place of a task."""
    parser.add_argument("--text", help="for the tasks that take text")
    parser.add_argument("--prompt", help="the prompt of a fine-tune, instead of a task")
    parser.add_argument(
        "--answer",
        metavar="KIND",
        help="how the answer to a prompt is read: "
        f"{', '.join(kind.name.lower() for kind in AnswerKind)} (default text)",
    )


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the search; `generation_options` reads the values."""
    parser.add_argument("--beams", type=int, metavar="N", help="beams (default: the checkpoint's)")
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="longest answer (default: the checkpoint's)"
    )
    add_min_score(parser)


def add_min_score(parser: argparse.ArgumentParser) -> None:
    """Adds the score below which a detection is left out."""
    parser.add_argument(
        "--min-score", type=float, metavar="P", help="leave out what scores below P, 0 to 1"
    )


def generation_options(arguments: argparse.Namespace) -> GenerationOptions:
    """Reads the options of `add_generation_options` that were given."""
    options: GenerationOptions = {}
    if arguments.beams is not None:
        options["num_beams"] = arguments.beams
    if arguments.max_new_tokens is not None:
        options["max_new_tokens"] = arguments.max_new_tokens
    if arguments.min_score is not None:
        options["min_score"] = arguments.min_score
    return options


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for large and small pictures."""
    parser.add_argument(
        "--tiles",
        type=_tiles,
        metavar="auto|CxR",
        help="also ask about parts of large pictures, in columns x rows: for od, "
        "dense_region_caption, region_proposal, ocr and ocr_with_region",
    )
    parser.add_argument(
        "--any-label",
        action="store_true",
        help="boxes of two tiles that overlap are one thing whatever their labels",
    )
    parser.add_argument(
        "--image-size",
        type=_image_size,
        metavar="N|WxH",
        help="size in pixels to which pictures are resized, for models that were trained on such "
        "pictures (default: the model's size)",
    )


def requested_tiles(arguments: argparse.Namespace) -> Tiles | None:
    """Reads the options of `add_picture_options` about tiles.

    Raises:
        InputError: The grid is wrong, or ``--any-label`` is given without tiles.
    """
    if arguments.tiles is None:
        if arguments.any_label:
            raise InputError("--any-label is about tiles; give --tiles too")
        return None
    return Tiles(arguments.tiles, per_label=not arguments.any_label)


def _tiles(text: str) -> str | tuple[int, int]:
    pair = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", text)
    if pair is None and text != "auto":
        raise argparse.ArgumentTypeError(f"{text!r} is not auto, or columns and rows as in 3x2")
    return text if pair is None else (int(pair[1]), int(pair[2]))


def _image_size(text: str) -> tuple[int, int]:
    pair = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", text)
    if pair is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels, or two as in 64x96")
    return int(pair[1]), int(pair[2] or pair[1])


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for opening a model."""
    parser.add_argument(
        "--precision",
        type=precision_of,
        metavar="P",
        help=f"graphs to open: {', '.join(hub_contract.SUFFIXES)}, or {AUTO} for what suits the "
        "machine, or one per graph, as in vision_encoder=fp16,*=q4 "
        "(default: fp32, or of a hub model what was pulled and suits the machine)",
    )
    parser.add_argument(
        "--provider",
        action="append",
        metavar="[GRAPH=]NAME",
        help="ONNX Runtime provider of all graphs, or of one (vision_encoder=NAME), most wanted "
        "first; may be repeated "
        "(default: CUDAExecutionProvider where it loads, else CPUExecutionProvider)",
    )
    parser.add_argument(
        "--threads",
        type=whole_number(1),
        metavar="N",
        help="threads (default: one per physical core that this process may use)",
    )
    parser.add_argument(
        "--fast-math",
        action="store_true",
        help="float32 matmuls in bfloat16, less exact, on Arm processors that have it",
    )


def add_hub_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the state and the source of a hub repository."""
    parser.add_argument(
        "--revision", metavar="REV", help="branch, tag or commit of a hub id (default: main)"
    )
    add_cache_dir(parser)
    parser.add_argument(
        "--local-files-only", action="store_true", help="use the cache only, never ask the hub"
    )


def add_cache_dir(parser: argparse.ArgumentParser) -> None:
    """Adds the option for the folder of the cache."""
    parser.add_argument(
        "--cache-dir",
        type=path,
        metavar="DIR",
        help="folder for what is fetched and made, instead of HF_HUB_CACHE and FLORENCE_ONNX_CACHE",
    )


def requested_access(arguments: argparse.Namespace) -> Access:
    """Reads the options of `add_hub_options`."""
    return Access(arguments.revision, arguments.cache_dir, arguments.local_files_only)


def precision_of(text: str) -> Precision:
    """Reads a precision of all graphs, or ``graph=precision,…`` with ``*`` for the other graphs.

    Names of graphs and precisions are not checked.

    Raises:
        argparse.ArgumentTypeError: A part is no pair, or a graph is named twice.
    """
    if "=" not in text:
        return text
    chosen: dict[str, str] = {}
    for part in text.split(","):
        graph, equals, name = (word.strip() for word in part.partition("="))
        if not (graph and equals and name) or "=" in name:
            raise argparse.ArgumentTypeError(
                f"{part!r} in {text!r} is not GRAPH=PRECISION, such as vision_encoder=fp16"
            )
        if graph in chosen:
            raise argparse.ArgumentTypeError(f"{text!r} names {graph} twice")
        chosen[graph] = name
    return chosen


def requested_providers(arguments: argparse.Namespace) -> dict[str, list[Provider]] | None:
    """Reads the providers in the options, per graph; None without any."""
    if not arguments.provider:
        return None
    requested: dict[str, list[Provider]] = {}
    for text in arguments.provider:
        graph, equals, name = text.rpartition("=")
        requested.setdefault(graph if equals else OTHERS, []).append(name)
    return requested


def path(text: str) -> Path:
    """Reads a path; expands a ``~`` that the shell did not expand, as in ``--draw=~/drawn``."""
    with suppress(RuntimeError):  # there is no home folder
        return Path(text).expanduser()
    return Path(text)


def whole_number(least: int) -> Callable[[str], int]:
    """Makes a parser of whole numbers of at least ``least``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return value

    return read
