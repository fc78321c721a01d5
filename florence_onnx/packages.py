"""Packages that only some uses need, and how to get them."""

import importlib.util
from collections.abc import Sequence

from florence_onnx.errors import MissingDependencyError


def require_packages(packages: Sequence[str], doing: str, extra: str, hint: str = "") -> None:
    """Names the command that installs what is missing.

    Args:
        packages: Packages, by the names they are imported by.
        doing: What needs the packages.
        extra: The extra of florence-onnx that brings the packages.
        hint: What else helps; the message says it after the command.

    Raises:
        MissingDependencyError: A package is not installed.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        named = ", ".join(missing).replace("PIL", "pillow")
        raise MissingDependencyError(
            f"{doing} needs {named}; run pip install 'florence-onnx[{extra}]'{hint}"
        )
