"""Opening of the model that a command's options name, and the words about its precision."""

import argparse
import shlex
from typing import Any

from florence_onnx.choosing import usual_precision
from florence_onnx.cli.options import requested_access, requested_providers
from florence_onnx.cli.status import exit_on_termination
from florence_onnx.engine.precision import AUTO, Precision
from florence_onnx.model import Florence2
from florence_onnx.model_cache import cached_model
from florence_onnx.terminal import say


def open_model(arguments: argparse.Namespace) -> Florence2:
    """Opens the model of the options; a line on stderr tells a precision that was chosen."""
    precision, best = chosen_precision(arguments)
    with exit_on_termination():  # The model may have to be made first.
        model = Florence2.load(
            arguments.model,
            precision=precision,
            threads=arguments.threads,
            **load_options(arguments),
        )
    if precision == AUTO or best is not None:
        say(f"precision: {model.precision}{gain_of_another(arguments, precision, best)}")
    return model


def load_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `Florence2.load` about the processor, providers and the hub."""
    return {
        "providers": requested_providers(arguments),
        "fast_math": arguments.fast_math,
        "revision": arguments.revision,
        "cache_dir": arguments.cache_dir,
        "local_files_only": arguments.local_files_only,
    }


def chosen_precision(arguments: argparse.Namespace) -> tuple[Precision, str | None]:
    """Chooses the precision if the user has not; also returns the precision that suits best."""
    if arguments.precision is not None:
        return arguments.precision, None
    return usual_precision(
        arguments.model, requested_providers(arguments), requested_access(arguments)
    )


def gain_of_another(arguments: argparse.Namespace, precision: Precision, best: str | None) -> str:
    """Makes the words on another precision, which follow the precision of an opened model.

    Args:
        arguments: Arguments of the command.
        precision: Result of `chosen_precision`.
        best: The precision that suits best, the other result.
    """
    if best is None or best == precision == "fp32":
        return ""
    if precision != "fp32":
        return "; --precision fp32 is slower and exact"
    source = arguments.model
    command = shlex.join(["florence-onnx", "pull", source, "--precision", best])
    made = cached_model(source, requested_access(arguments)) is not None
    how = f"made by {command}" if made else f"fetched by {command} if the repository has it"
    return f"; {best} is faster on this machine and less exact, and is {how}"
