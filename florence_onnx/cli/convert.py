"""Command ``florence-onnx convert``: the answers of an annotation as the files of other tools."""

import argparse
import os
from pathlib import Path

from florence_onnx.cli.options import add_min_score, path
from florence_onnx.converting.coco import write_coco
from florence_onnx.converting.per_picture import Words, write_labelme, write_sidecars, write_voc
from florence_onnx.converting.reading import Labels, read_classes, read_labels
from florence_onnx.converting.supervision import write_supervision
from florence_onnx.converting.table import write_csv, write_parquet
from florence_onnx.converting.yolo import write_yolo
from florence_onnx.errors import InputError, OutputExistsError
from florence_onnx.generation.policy import ANY_MODEL
from florence_onnx.terminal import show

NAME = "convert"
SUMMARY = (
    "Write the answers of an annotation in other formats: COCO, YOLO, VOC, LabelMe, tables, texts."
)
EXAMPLES = """examples:
  florence-onnx convert labelled/annotations.jsonl --to coco --task od --out coco.json
  florence-onnx convert labelled/annotations.jsonl --to yolo --task od --split 0.1 --out dataset
  florence-onnx convert labelled/annotations.jsonl --to sidecar --task caption --out texts

Boxes without an area are left out. Nothing that exists is replaced.
"""
FORMATS = ("coco", "yolo", "voc", "labelme", "csv", "parquet", "supervision", "sidecar")

_OF_TEXT = ("csv", "parquet", "sidecar")
"""Formats that have a place for answers that are text."""
_FORMATS_OF = {
    "classes": ("coco", "yolo", "supervision"),
    "split": ("yolo",),
    **dict.fromkeys(
        ("prefix", "suffix", "separator", "banned", "first", "tag_style"), ("sidecar",)
    ),
}
"""Option -> formats that use the option, for options that not all formats use."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("annotations", type=path, metavar="FILE", help="annotations.jsonl")
    parser.add_argument("--to", choices=FORMATS, required=True, help="the format")
    parser.add_argument(
        "--out",
        type=path,
        metavar="PATH",
        required=True,
        help="what to write: a folder for yolo, voc, labelme and sidecar, a file for the others",
    )
    parser.add_argument("--task", nargs="+", metavar="TASK", help="answers to take (default: all)")
    add_min_score(parser)
    parser.add_argument(
        "--classes",
        type=path,
        metavar="FILE",
        help="text file of labels, a line each, that are numbered in this order before all others, "
        "such as the classes.txt of an earlier yolo",
    )
    parser.add_argument(
        "--split",
        type=_share,
        metavar="P",
        help="yolo: part of the pictures for validation, 0 to 1 (default 0)",
    )
    words = parser.add_argument_group("sidecar: text beside pictures")
    words.add_argument("--prefix", help="text in front of every text")
    words.add_argument("--suffix", help="text behind every text")
    words.add_argument("--separator", help="text between two answers or labels (default: ', ')")
    words.add_argument("--banned", nargs="+", metavar="WORD", help="words and labels to leave out")
    words.add_argument(
        "--first", nargs="+", metavar="WORD", help="words that every text begins with"
    )
    words.add_argument(
        "--tag-style",
        choices=("blanks", "underscores"),
        help="what is between the words of a label (default: blanks)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    out: Path = arguments.out
    if os.path.lexists(out):
        raise OutputExistsError(f"{out} exists; choose another name")
    _check_options(arguments)
    try:
        classes = [] if arguments.classes is None else read_classes(arguments.classes)
        labels = read_labels(arguments.annotations, arguments.task, arguments.min_score, classes)
    except FileNotFoundError as error:
        raise InputError(f"{arguments.annotations} does not exist") from error
    except IsADirectoryError as error:
        inside = arguments.annotations / "annotations.jsonl"
        raise InputError(f"{arguments.annotations} is a folder; give {inside}") from error
    _check_answers(arguments, labels)
    words = Words(
        arguments.prefix or "",
        arguments.suffix or "",
        ", " if arguments.separator is None else arguments.separator,
        arguments.banned or (),
        arguments.first or (),
        arguments.tag_style == "underscores",
    )
    writers = {
        "coco": lambda: write_coco(labels, out),
        "yolo": lambda: write_yolo(labels, out, arguments.split or 0.0),
        "voc": lambda: write_voc(labels, out),
        "labelme": lambda: write_labelme(labels, out),
        "csv": lambda: write_csv(labels, out),
        "parquet": lambda: write_parquet(labels, out),
        "supervision": lambda: write_supervision(labels, out),
        "sidecar": lambda: write_sidecars(labels, out, words),
    }
    writers[arguments.to]()
    show(f"{len(labels.pictures)} pictures: {out}")
    return 0


def _check_options(arguments: argparse.Namespace) -> None:
    """Raises InputError for a score out of range, and for options of another format."""
    if arguments.min_score is not None:
        ANY_MODEL.replace(min_score=arguments.min_score)
    for name, formats in _FORMATS_OF.items():
        if getattr(arguments, name) is not None and arguments.to not in formats:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is for --to {' and '.join(formats)}, not {arguments.to}")


def _check_answers(arguments: argparse.Namespace, labels: Labels) -> None:
    """Raises InputError where all answers are text, and a format or an option is about things."""
    answers = (answer for picture in labels.pictures for answer in picture.answers.values())
    if any(answer.names for answer in answers):
        return
    if arguments.to not in _OF_TEXT:
        raise InputError(
            f"all answers that are taken are text: --to {arguments.to} needs answers that locate "
            f"things; {', '.join(_OF_TEXT)} also take text"
        )
    if arguments.min_score is not None:
        raise InputError("--min-score is about things with scores; all answers taken are text")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value
