"""Tensors in the memory of a graph's provider: making and gathering."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from florence_onnx.engine.contract import FLOAT
from florence_onnx.engine.gather import FLOAT as NUMBER_OF_FLOAT
from florence_onnx.engine.gather import FLOAT16 as NUMBER_OF_FLOAT16
from florence_onnx.engine.gather import gather_graph
from florence_onnx.engine.providers import CPU, CUDA, Device

if TYPE_CHECKING:
    import onnxruntime as ort


def zeros(count: int, shape: tuple[int, ...], device: Device) -> "list[ort.OrtValue]":
    """Makes ``number`` float32 tensors of zeros that share no memory."""
    import onnxruntime as ort

    blank = np.zeros(shape, dtype=np.float32)
    return [ort.OrtValue.ortvalue_from_numpy(blank.copy(), *device) for _ in range(count)]


class Gatherer:
    """Gatherer of the same indices from several tensors."""

    def __init__(
        self,
        count: int,
        axis: int,
        session: "ort.InferenceSession",
        device: Device,
        kind: str = FLOAT,
    ) -> None:
        """Prepares any number of runs.

        Args:
            count: Number of tensors, with four axes each.
            axis: The axis that indices select from.
            session: The session of the tensors; the provider of the session gathers.
            device: The device of the results.
            kind: The element type, float32 or float16, by ONNX Runtime's name.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # Starting threads would take longer than copying.
        settings = session.get_provider_options()
        number = NUMBER_OF_FLOAT if kind == FLOAT else NUMBER_OF_FLOAT16
        self._device = device
        self._session = ort.InferenceSession(
            gather_graph(count, rank=4, axis=axis, kind=number),
            options,
            # Among the providers that share the host's memory, the CPU gathers fastest.
            providers=[
                (name, settings[name]) for name in session.get_providers() if name in (CUDA, CPU)
            ],
        )

    def __call__(
        self, values: "Sequence[ort.OrtValue]", indices: npt.NDArray[np.int64]
    ) -> "list[ort.OrtValue]":
        """Takes ``indices``, int64 [n], of every value."""
        binding = self._session.io_binding()
        binding.bind_cpu_input("indices", indices)
        for i, value in enumerate(values):
            binding.bind_ortvalue_input(f"data_{i}", value)
            binding.bind_output(f"out_{i}", *self._device)
        self._session.run_with_iobinding(binding)
        return list(binding.get_outputs())
