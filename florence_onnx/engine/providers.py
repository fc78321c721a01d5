"""Choice of execution providers per graph, and the check that sessions use these providers."""

import contextlib
import ctypes
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from florence_onnx.engine import contract
from florence_onnx.engine.gather import gather_graph
from florence_onnx.errors import ProviderError
from florence_onnx.packages import require_packages
from florence_onnx.terminal import standard_error

if TYPE_CHECKING:
    import onnxruntime as ort

Provider = str | tuple[str, dict[str, Any]]
"""Provider of ONNX Runtime: the name, or the name and options."""
Providers = Sequence[Provider] | Mapping[str, Sequence[Provider]]
"""Providers for all graphs, most wanted first, or such a list per graph name."""

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
EXTRAS = {CUDA: "gpu", "OpenVINOExecutionProvider": "openvino"}
"""Provider -> the extra of this package that brings the provider."""
_EXACT = {CUDA: {"use_tf32": "0"}}
"""Options with which float32 is computed in float32. A caller's own options replace these."""
OTHERS = "*"
"""Name for the graphs that a mapping does not name."""


class Device(NamedTuple):
    """Device of a tensor, in the terms of IO binding."""

    kind: str
    """Kind of device: ``cpu`` or ``cuda``."""
    number: int
    """Number of the GPU."""


HOST = Device("cpu", 0)


def device_of(session: "ort.InferenceSession") -> Device:
    """Device of a session's tensors: for every provider but CUDA, the host."""
    first = session.get_providers()[0]
    if first != CUDA:
        return HOST
    return Device("cuda", int(session.get_provider_options()[first].get("device_id", 0)))


def require_onnxruntime() -> None:
    """Raises a `MissingDependencyError` with the command to run when ONNX Runtime is absent."""
    hint = " ([gpu] for CUDA, [openvino] for OpenVINO)"
    require_packages(("onnxruntime",), "running a model", "cpu", hint)


def runtime_version() -> str:
    """Version of the installed ONNX Runtime."""
    import onnxruntime

    return str(onnxruntime.__version__)


def available_providers() -> list[str]:
    """Lists the providers of the installed ONNX Runtime, by ONNX Runtime's names."""
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def providers_by_graph(
    requested: Providers | None,
    graphs: Collection[str] = contract.GRAPHS,
    others: Collection[str] = (),
) -> dict[str, list[Provider]]:
    """Chooses the providers of each graph, most wanted first.

    Args:
        requested: Providers, as in `choose_providers`, for all graphs; or a mapping from graph name
            to such a list, ``"*"`` for other graphs. For graphs that are left out, the choice is
            that for None.
        graphs: The graphs to open.
        others: Graphs that may be named, and are not opened.

    Raises:
        ProviderError: There is no such graph, or a provider cannot be had.
    """
    if not isinstance(requested, Mapping):
        return dict.fromkeys(graphs, choose_providers(requested))
    known = dict.fromkeys((*graphs, *others, OTHERS))
    unknown = [repr(name) for name in requested if name not in known]
    if unknown:
        raise ProviderError(
            f"providers names no graph of a model: {', '.join(unknown)}; use {', '.join(known)}"
        )
    chosen = {name: choose_providers(given) for name, given in requested.items()}
    if not chosen.keys() >= set(graphs):
        chosen.setdefault(OTHERS, choose_providers(None))
    return {name: chosen[name if name in chosen else OTHERS] for name in graphs}


def _listed(requested: Iterable[Provider]) -> list[Provider]:
    try:
        return list(requested)
    except TypeError:
        raise ProviderError(
            f"providers is {requested!r}; it must be a list of names or (name, options) pairs"
        ) from None


def choose_providers(requested: Sequence[Provider] | None) -> list[Provider]:
    """Chooses the providers of a session, most wanted first.

    Args:
        requested: Provider names or (name, options) pairs; None for CUDA where this build of
            ONNX Runtime has CUDA and CUDA starts, else the CPU. CUDA computes float32 matmuls in
            float32, not in TensorFloat-32, unless the options say otherwise.

    Raises:
        ProviderError: A requested provider is not in this build of ONNX Runtime, or cannot start.
    """
    import onnxruntime as ort

    available = ort.get_available_providers()
    if requested is None:
        usable = CUDA in available and start_failure(CUDA) is None
        return [_exact(CUDA), CPU] if usable else [CPU]
    chosen: list[Provider] = [requested] if isinstance(requested, str) else _listed(requested)
    if not chosen:
        raise ProviderError(f"providers is empty; choose from {', '.join(available)}, or None")
    for provider in chosen:
        name = provider_name(provider)
        if name not in available:
            hint = f"; {_how_to_install(name)}" if name in EXTRAS else ""
            raise ProviderError(
                f"provider {name!r} is not in this build of ONNX Runtime, "
                f"which has {', '.join(available)}{hint}"
            )
        failure = start_failure(provider)
        if failure:
            raise ProviderError(f"{name} cannot start: {failure}")
    return [_exact(provider) for provider in chosen]


def _exact(provider: Provider) -> Provider:
    name, given = (provider, {}) if isinstance(provider, str) else provider
    options = _EXACT.get(name, {}) | given
    return (name, options) if options else provider


def _how_to_install(provider: str) -> str:
    # The builds of ONNX Runtime write the same folder, so a second one damages the first.
    return (
        "to get it, uninstall the onnxruntime package there is, then "
        f"pip install 'florence-onnx[{EXTRAS[provider]}]'"
    )


def provider_name(provider: Provider) -> str:
    """Name of a provider that is given with or without options."""
    if isinstance(provider, str):
        return provider
    if isinstance(provider, tuple) and len(provider) == 2:
        name, options = provider
        if isinstance(name, str) and isinstance(options, dict):
            return name
    raise ProviderError(
        f"a provider is a name or a pair of a name and a dict of options, not {provider!r}"
    )


def check_obtained(graph: str, requested: Sequence[Provider], obtained: Sequence[str]) -> None:
    """Raises ProviderError if ONNX Runtime dropped a provider, which it only logs."""
    lost = [name for name in map(provider_name, requested) if name not in obtained]
    if lost:
        raise ProviderError(
            f"{graph}: ONNX Runtime did not start {', '.join(lost)} and fell back to "
            f"{', '.join(obtained)}; its log on stderr says why"
        )


def start_failure(provider: Provider) -> str | None:
    """Tries a provider with a tiny graph; returns the reason why it cannot start, or None."""
    import onnxruntime as ort

    name = provider_name(provider)
    failure = cuda_failure() if name == CUDA else None
    if failure or name == CPU:
        return failure
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(
            gather_graph(count=1, rank=1), options, providers=[provider], enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base.
        return first_line(error)
    return None if name in session.get_providers() else "its log on stderr says why"


def first_line(error: Exception) -> str:
    """First line of an error of ONNX Runtime. Other lines name places in ONNX Runtime's source."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def cuda_failure() -> str | None:
    """Reason why the library of the CUDA provider cannot be loaded; None if it can."""
    import onnxruntime as ort

    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(
            standard_error()
        ):  # The library prints the names that it cannot find.
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
