"""Tensors that stay where the provider of a graph keeps them: made there and gathered there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from florence_onnx.engine.gather import gather_graph
from florence_onnx.engine.providers import CPU, CUDA, Device

if TYPE_CHECKING:
    import onnxruntime as ort


def zeros(count: int, shape: tuple[int, ...], device: Device) -> "list[ort.OrtValue]":
    """As many float32 tensors of zeros, each with memory of its own."""
    import onnxruntime as ort

    blank = np.zeros(shape, dtype=np.float32)
    return [ort.OrtValue.ortvalue_from_numpy(blank.copy(), *device) for _ in range(count)]


def gather(
    values: "Sequence[ort.OrtValue]",
    indices: npt.NDArray[np.int64],
    axis: int,
    session: "ort.InferenceSession",
    device: Device,
) -> "list[ort.OrtValue]":
    """Takes ``indices`` of an axis of every value.

    Args:
        values: float32 tensors with four axes.
        indices: int64 [n].
        axis: The axis they select from.
        session: Whose tensors they are; its provider gathers.
        device: Where the results are left.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # Starting threads would take longer than copying.
    settings = session.get_provider_options()
    gathering = ort.InferenceSession(
        gather_graph(len(values), rank=4, axis=axis),
        options,
        # Of the providers that share the host's memory, the CPU gathers best.
        providers=[
            (name, settings[name]) for name in session.get_providers() if name in (CUDA, CPU)
        ],
    )
    binding = gathering.io_binding()
    binding.bind_cpu_input("indices", indices)
    for i, value in enumerate(values):
        binding.bind_ortvalue_input(f"data_{i}", value)
        binding.bind_output(f"out_{i}", *device)
    gathering.run_with_iobinding(binding)
    return list(binding.get_outputs())
