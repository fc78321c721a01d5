"""Which graphs of a model to open: the precision asked for, or the one that suits the machine."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from florence_onnx.errors import PrecisionError
from florence_onnx.processor import has_int8_dot_products
from florence_onnx.providers import (
    CPU,
    CUDA,
    Provider,
    Providers,
    provider_name,
    providers_by_graph,
    require_onnxruntime,
)
from florence_onnx.resolver import resolve
from florence_onnx.sessions import present_precisions

AUTO = "auto"


def locate(
    source: str | os.PathLike[str], precision: str, providers: Providers | None
) -> tuple[Path, str]:
    """The folder of a model and the precision to open there.

    Args:
        source: A model folder, a hub id, or ``"demo"``.
        precision: The precision asked for; ``"auto"`` for the first of `suitable_precisions` that
            the model has. Any other is passed on unchecked.
        providers: What the graphs are to run on.

    Raises:
        ModelNotFoundError: There is no such model.
        PrecisionError: The model has no precision that suits.
        ProviderError: A provider cannot be had.
    """
    if precision != AUTO:
        return resolve(source, precision=precision), precision
    require_onnxruntime()
    suitable = suitable_precisions(providers_by_graph(providers))
    for name in suitable:
        folder = resolve(source, precision=name)
        present = present_precisions(folder)
        if name in present:
            return folder, name
    raise PrecisionError(
        f"{folder} has no precision that suits these providers and this processor "
        f"({', '.join(suitable)}); present: {', '.join(present) or 'none complete'}"
    )


def suitable_precisions(providers: Mapping[str, Sequence[Provider]]) -> tuple[str, ...]:
    """The precisions that suit the providers of the graphs and the processor, best first.

    4 bits cost accuracy that a caller has to accept in so many words.
    """
    first = {provider_name(wanted[0]) for wanted in providers.values()}
    if first == {CUDA}:
        return ("fp16", "fp32")
    if first == {CPU} and has_int8_dot_products():
        return ("q8", "fp32")
    return ("fp32",)
