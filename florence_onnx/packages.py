"""Optional packages, and the commands that install them."""

import importlib.util
from collections.abc import Sequence

from florence_onnx.errors import MissingDependencyError


def require_packages(packages: Sequence[str], doing: str, extra: str, hint: str = "") -> None:
    """Checks that packages are installed; the error names the command that installs them.

    Args:
        packages: Names under which the packages are imported.
        doing: The use that needs the packages.
        extra: The extra of florence-onnx that brings the packages.
        hint: Other help, which the message has after the command.

    Raises:
        MissingDependencyError: A package is not installed.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        named = ", ".join(missing).replace("PIL", "pillow")
        raise MissingDependencyError(
            f"{doing} needs {named}; run pip install 'florence-onnx[{extra}]'{hint}"
        )
