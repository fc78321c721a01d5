"""Choosing ONNX Runtime's execution providers, and checking that they were obtained."""

import ctypes
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from florence_onnx.errors import MissingDependencyError, ProviderError

Provider = str | tuple[str, Mapping[str, Any]]
"""An ONNX Runtime provider by its own name, or the name and its options."""

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def require_onnxruntime() -> None:
    """Raises a `MissingDependencyError` with the command to run when ONNX Runtime is absent."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingDependencyError(
            "ONNX Runtime is not installed; run pip install 'florence-onnx[cpu]', "
            "or 'florence-onnx[gpu]' for CUDA"
        )


def choose_providers(requested: Sequence[Provider] | None) -> list[Provider]:
    """The providers to open sessions with, most wanted first.

    Args:
        requested: Provider names or (name, options) pairs; None for CUDA where this build of
            ONNX Runtime has it and it loads, else the CPU.

    Raises:
        ProviderError: A requested provider is not in this build of ONNX Runtime, or cannot load.
    """
    import onnxruntime as ort

    available = ort.get_available_providers()
    if requested is None:
        usable = CUDA in available and cuda_failure() is None
        return [CUDA, CPU] if usable else [CPU]
    chosen: list[Provider] = [requested] if isinstance(requested, str) else list(requested)
    for provider in chosen:
        name = provider_name(provider)
        if name not in available:
            hint = " (pip install 'florence-onnx[gpu]')" if name == CUDA else ""
            raise ProviderError(
                f"provider {name!r} is not in this build of ONNX Runtime{hint}; "
                f"it has {', '.join(available)}"
            )
        failure = cuda_failure() if name == CUDA else None
        if failure:
            raise ProviderError(f"{CUDA} cannot load: {failure}")
    if not chosen:
        raise ProviderError(f"providers is empty; choose from {', '.join(available)}, or None")
    return chosen


def provider_name(provider: Provider) -> str:
    """The name in a provider given with or without options."""
    if isinstance(provider, str):
        return provider
    if isinstance(provider, tuple) and len(provider) == 2 and isinstance(provider[0], str):
        return provider[0]
    raise ProviderError(f"a provider is a name or a (name, options) pair, not {provider!r}")


def check_obtained(requested: Sequence[Provider], obtained: Sequence[str]) -> None:
    """Raises when ONNX Runtime dropped a provider, which it does with no more than a log line."""
    lost = [name for name in map(provider_name, requested) if name not in obtained]
    if lost:
        raise ProviderError(
            f"ONNX Runtime did not start {', '.join(lost)} and fell back to "
            f"{', '.join(obtained)}; its log on stderr says why"
        )


def cuda_failure() -> str | None:
    """Why CUDA's provider library cannot be loaded, or None when it can."""
    import onnxruntime as ort

    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not library.exists():
        return None
    try:
        # The provider library resolves symbols of the shared one, which loads first.
        ctypes.CDLL(
            str(library.with_name("libonnxruntime_providers_shared.so")), ctypes.RTLD_GLOBAL
        )
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return None
