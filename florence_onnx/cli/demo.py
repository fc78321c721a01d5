"""Command ``florence-onnx demo``: tries a model on a page in the browser."""

import argparse
from collections.abc import Mapping
from typing import Any

from florence_onnx.choosing import locate
from florence_onnx.cli.addresses import add_address_options
from florence_onnx.cli.opening import chosen_precision
from florence_onnx.cli.options import (
    add_hub_options,
    add_model_option,
    add_model_options,
    precision_of,
    requested_access,
    requested_providers,
)
from florence_onnx.cli.serve import warmed_up
from florence_onnx.engine.precision import AUTO
from florence_onnx.engine.present import present_precisions
from florence_onnx.model import Florence2
from florence_onnx.packages import require_packages
from florence_onnx.page.app import folder_for_files, make_app
from florence_onnx.page.blocks import make_page
from florence_onnx.page.models import Models
from florence_onnx.page.snippets import Source
from florence_onnx.serving.running import serve
from florence_onnx.terminal import say, show

NAME = "demo"
SUMMARY = "Try a model on a page in the browser."
EXAMPLES = """examples:
  florence-onnx demo --model demo
  florence-onnx demo --model microsoft/Florence-2-base-ft --precision auto
  florence-onnx demo --model ./finetune --port 0

The page is for yourself: it listens at 127.0.0.1 and asks for no key. For others and for programs,
there is florence-onnx serve.
"""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model_option(parser)
    add_address_options(parser, 7860)
    add_model_options(parser)
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    require_packages(("gradio", "PIL"), "demo", "demo")
    models = open_models(arguments)

    def source(precision: str) -> Source:
        return source_of(arguments, precision, len(models.precisions) > 1)

    def announce(host: str, port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        show(f"Open http://{shown}:{port}/ in a browser. Ctrl-C ends it.")
        if host not in _LOOPBACK:
            say("note: everybody who reaches this address can use the page, which asks for no key")

    with folder_for_files():
        app = make_app(make_page(models, source))
        serve(lambda on_failure: app, arguments.host, arguments.port, 0, announce)
    return 0


def source_of(arguments: argparse.Namespace, precision: str, is_chosen: bool) -> Source:
    """Makes the source of an opened model, for programs and commands.

    Args:
        arguments: Arguments of the command.
        precision: Precision of the opened model.
        is_chosen: Whether a command without an option would take another precision.
    """
    flags = ["--precision", precision] if is_chosen or precision != "fp32" else []
    for provider in arguments.provider or ():
        flags += ["--provider", provider]
    options: dict[str, Any] = {} if precision == "fp32" else {"precision": precision_of(precision)}
    options["providers"] = requested_providers(arguments)
    for name in ("threads", "revision", "cache_dir"):
        value = getattr(arguments, name)
        if value is not None:
            options[name] = value if isinstance(value, int) else str(value)
            flags += [f"--{name.replace('_', '-')}", str(value)]
    if arguments.local_files_only:
        options["local_files_only"] = True
        flags.append("--local-files-only")
    if options["providers"] is None:
        del options["providers"]
    return Source(arguments.model, options, flags)


def open_models(arguments: argparse.Namespace) -> Models:
    """Opens the model, and finds the precisions that its folder holds."""
    asked = chosen_precision(arguments)[0]
    model = warmed_up(arguments.model, arguments)
    folder = locate(
        arguments.model,
        asked,
        requested_providers(arguments),
        lambda folder, precision: folder,
        requested_access(arguments),
    )
    if isinstance(asked, Mapping):
        asked = ",".join(f"{graph}={name}" for graph, name in asked.items())

    def opened(precision: str) -> Florence2:
        changed = {**vars(arguments), "precision": precision_of(precision)}
        return warmed_up(arguments.model, argparse.Namespace(**changed))

    first = model.precision if asked == AUTO else asked
    return Models(model, first, present_precisions(folder), opened)
