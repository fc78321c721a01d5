"""Code for all commands that run the exporter."""

import argparse
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from florence_onnx.checkpoints.checkpoint import Checkpoint, read_checkpoint
from florence_onnx.cli.options import path, requested_access
from florence_onnx.errors import InputError
from florence_onnx.packages import require_packages
from florence_onnx.terminal import say, show


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments for the checkpoint and for the models that complete it."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="folder, hub id, org/name:folder for a folder in a repository, or .safetensors file",
    )
    add_completion(parser)


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments for the models that complete a checkpoint."""
    parser.add_argument(
        "--base",
        metavar="CHECKPOINT",
        help="base model to merge an adapter into (default: the model that the adapter names)",
    )
    parser.add_argument(
        "--companions",
        metavar="BASE",
        help="folder or hub id of the model whose config.json, tokenizer and preprocessing are "
        "taken where the checkpoint has none",
    )


def requested_checkpoint(arguments: argparse.Namespace) -> Checkpoint:
    """Reads the checkpoint that the arguments of `add_checkpoint` name."""
    return read_named(arguments.checkpoint, arguments)


def read_named(source: str, arguments: argparse.Namespace) -> Checkpoint:
    """Reads a checkpoint, with the arguments of `add_completion` and of the hub."""
    access = requested_access(arguments)
    return read_checkpoint(source, access, arguments.base, arguments.companions)


def add_accept_error(parser: argparse.ArgumentParser) -> None:
    """Adds the option for precisions beyond their bounds."""
    parser.add_argument(
        "--accept-error",
        action="store_true",
        help="quantise all matrix multiplications, and write a precision whatever its error",
    )


def add_rounding(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the rounding of weights in q8 and q4."""
    parser.add_argument(
        "--pictures",
        type=path,
        metavar="FOLDER",
        help="round the weights of q8 and q4 for the pictures in FOLDER, at least 4, instead of "
        "drawn pictures; every second picture is held back to measure the error",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="make q8 and q4 in a third of the time: round weights for 2 pictures and measure the "
        "error on fewer; the bounds of the error are the same",
    )


def given_rounding(arguments: argparse.Namespace) -> list[str]:
    """Lists the options of `add_rounding` that are given, with their values."""
    own = [] if arguments.pictures is None else ["--pictures", str(arguments.pictures)]
    return [*own, "--fast"] if arguments.fast else own


def check_rounding(arguments: argparse.Namespace, precisions: Collection[str]) -> None:
    """Refuses options of `add_rounding` where no precision is made from fp32.

    Raises:
        InputError: An option is given and no precision but fp32, or the pictures are no folder.
    """
    given = given_rounding(arguments)
    if given and not {*precisions} - {"fp32"}:
        raise InputError(f"{given[0]} needs a precision to round weights for; add --precision q8")
    if arguments.pictures is not None and not arguments.pictures.is_dir():
        raise InputError(f"--pictures: {arguments.pictures} is not a folder")


def require_quantizing() -> None:
    """Refuses to quantise where a package that quantising needs is missing."""
    require_packages(("onnx", "onnxruntime", "PIL"), "quantising", "quantize")


def comma_list(text: str) -> list[str]:
    """Reads a list ``a,b`` without duplicates."""
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def timed_progress() -> Callable[[str], None]:
    """Prints lines on stderr with the seconds since now."""
    start = time.perf_counter()

    def progress(message: str) -> None:
        say(f"[{time.perf_counter() - start:6.1f} s] {message}")

    return progress


def print_precisions(entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a line for every precision made from fp32."""
    for name, entry in entries.items():
        size = sum(entry["bytes"].values()) / 1e6
        fidelity = entry["fidelity"]
        features, logits = (
            "overflow" if fidelity[key] is None else f"{fidelity[key]:.2%}"
            for key in ("image_features", "first_logits")
        )
        show(
            f"{name}: {size:.0f} MB; from fp32: image features {features}, first logits {logits}, "
            f"{fidelity['token_agreement']:.1%} of tokens equal{_measured_on(entry)}"
        )


def _measured_on(entry: Mapping[str, Any]) -> str:
    pictures = entry.get("pictures")
    if pictures is None:
        return ""
    return f", on {pictures['held_back']} pictures of {pictures['folder']} held back"
