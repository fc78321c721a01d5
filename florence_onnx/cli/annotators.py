"""Annotators of pictures: this process, or actors of a Ray cluster."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from florence_onnx.annotate.cluster import LOCAL, Crew, connected
from florence_onnx.annotate.output import Output
from florence_onnx.annotate.pipeline import Annotation, Summary
from florence_onnx.annotate.questions import Plan
from florence_onnx.annotate.sources import Item
from florence_onnx.assets.identity import model_digest
from florence_onnx.cli.opening import chosen_precision, gain_of_another, load_options, open_model
from florence_onnx.cli.options import whole_number
from florence_onnx.cli.progress import Watch
from florence_onnx.engine.precision import AUTO
from florence_onnx.errors import InputError
from florence_onnx.terminal import say

Stopped = Callable[[], bool]


@dataclass(frozen=True)
class Annotator:
    """Annotator with a model that opens and takes the options."""

    digest: str
    """Digest of the model's files."""
    precision: str
    run: Callable[[Sequence[Item], Output, Stopped, Watch], Summary]


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for a Ray cluster."""
    parser.add_argument(
        "--ray",
        metavar=f"ADDRESS|{LOCAL}",
        help=f"have actors of a Ray cluster answer, each with a model and --threads; {LOCAL} "
        "starts one on this machine, auto is the one that this machine belongs to",
    )
    parser.add_argument(
        "--actors",
        type=whole_number(1),
        metavar="N",
        help="actors of --ray (default: as many as the cluster has room for)",
    )
    parser.add_argument(
        "--gpus-per-actor",
        type=_part,
        metavar="N",
        help="GPUs of an actor of --ray, such as 0.5 for two actors on each (default: 0)",
    )


def here(arguments: argparse.Namespace, plan: Plan) -> Annotator:
    """Makes an annotator of this process."""
    for name in ("actors", "gpus_per_actor"):
        if getattr(arguments, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} is about --ray; give --ray too")
    model = open_model(arguments)
    # Wrong options are refused before anything is written.
    model.policy.replace(**plan.options)
    model.assets.at_size(plan.image_size)
    digest = model_digest(model.graphs.folder, [*model.graphs.files.values()])

    def run(items: Sequence[Item], output: Output, stopped: Stopped, watch: Watch) -> Summary:
        return Annotation(model, plan, output, stopped=stopped, watch=watch).run(items)

    return Annotator(digest, model.precision, run)


def on_ray(arguments: argparse.Namespace, plan: Plan, stack: ExitStack) -> Annotator:
    """Makes an annotator of Ray actors; the connection ends when the stack is closed."""
    stack.enter_context(connected(arguments.ray))
    precision, best = chosen_precision(arguments)
    crew = Crew.of(
        arguments.model,
        plan,
        {"precision": precision, **load_options(arguments)},
        actors=arguments.actors,
        threads=arguments.threads,
        gpus=arguments.gpus_per_actor or 0.0,
    )
    digest, opened = crew.identify()
    if precision == AUTO:  # All actors take the precision that suits the first actor.
        crew = replace(crew, opening={**crew.opening, "precision": opened})
    say(f"precision: {opened}{gain_of_another(arguments, precision, best)}")
    say(f"actors: {crew.actors}, threads of each: {crew.threads}")

    def run(items: Sequence[Item], output: Output, stopped: Stopped, watch: Watch) -> Summary:
        return crew.run(items, output, stopped=stopped, watch=watch)

    return Annotator(digest, opened, run)


def _part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (0 < value < 1 or (value >= 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a part of a GPU, such as 0.5, or a number of them"
        )
    return value
