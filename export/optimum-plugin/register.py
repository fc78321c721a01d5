"""Registration of Florence-2 with ``optimum-cli export onnx``."""

from typing import Any

from optimum.commands.export.onnx import ONNXExportCommand

_run = ONNXExportCommand.run


def _run_or_export(self: Any) -> None:
    """Exports a Florence-2; leaves other models to optimum."""
    from florence_optimum.command import export, is_florence2

    if is_florence2(self.args):
        export(self.args)
    else:
        _run(self)


ONNXExportCommand.run = _run_or_export
REGISTER_COMMANDS: list[Any] = []
