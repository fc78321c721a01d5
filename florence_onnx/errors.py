"""Exceptions of florence_onnx and of the exporter.

    FlorenceError
    ├── ModelError                    a model folder cannot be used
    │   ├── ModelNotFoundError        (FileNotFoundError) no such folder or hub id
    │   ├── ModelFileError            (OSError) a file is missing, truncated or foreign
    │   ├── GraphContractError        (ValueError) a graph has other inputs or outputs
    │   ├── GraphRunError             (RuntimeError) a graph failed, or returned NaN or other shapes
    │   ├── TokenizerError            (ValueError) the tokenizer is none of a Florence-2
    │   ├── PrecisionError            (ValueError) the folder has no graphs of this precision
    │   ├── SessionOptionsError       (ValueError) wrong session options, threads or fast_math
    │   └── ProviderError             (RuntimeError) a provider was asked for and not obtained
    ├── InputError                    (ValueError) a request cannot be answered
    │   ├── ImageError                not a picture the model can read
    │   ├── TaskError                 unknown task, or text missing, or text where none is taken
    │   ├── RegionError               malformed region, or outside the picture
    │   └── GenerationError           a generation option is out of range
    ├── ExportError                   a checkpoint cannot be exported
    │   ├── CheckpointError           (ValueError) files, keys or shapes of no Florence-2
    │   ├── DiskSpaceError            (ModelError, OSError) a disk has too little free space
    │   ├── FolderBusyError           another process is writing to the folder
    │   └── ValidationError           an exported graph does not agree with PyTorch
    ├── OutputExistsError             (FileExistsError) the output exists already
    └── MissingDependencyError        (ImportError) an optional package is needed

``ModelWarning`` (UserWarning) tells what a user should know of a model that works all the same.

Every message names the fault and the remedy. The command line prints the
message of any ``FlorenceError`` as one line and exits with status 2; a warning is one line too.
"""

from florence_onnx.terminal import printable


class FlorenceError(Exception):
    """Base of all errors that this package raises on purpose."""

    def __str__(self) -> str:
        """Returns the message, with control characters of foreign names spelled out."""
        return printable(super().__str__(), keep="\n\t")


class ModelError(FlorenceError):
    """Signals a model folder that cannot be used."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """Signals that no folder or hub repository has this name."""


class ModelFileError(ModelError, OSError):
    """Signals a model's file that is missing, truncated or of another kind than its name says."""


class GraphContractError(ModelError, ValueError):
    """Signals a graph with other inputs or outputs than the graph contract."""


class GraphRunError(ModelError, RuntimeError):
    """Signals a graph that failed, or returned NaN or a shape that the graph does not declare."""


class TokenizerError(ModelError, ValueError):
    """Signals a tokenizer of another kind than Florence-2's, or without Florence-2's tokens."""


class PrecisionError(ModelError, ValueError):
    """Signals a model folder without graphs of the precision asked for."""


class SessionOptionsError(ModelError, ValueError):
    """Signals a wrong value of ``session_options=``, ``threads=`` or ``fast_math=``."""


class ProviderError(ModelError, RuntimeError):
    """Signals an execution provider that was asked for and is not available."""


class InputError(FlorenceError, ValueError):
    """Signals a request that is wrong and cannot be answered."""


class ImageError(InputError):
    """Signals an image that the model cannot read."""


class TaskError(InputError):
    """Signals an unknown task, missing text, or text for a task that takes none."""


class RegionError(InputError):
    """Signals a region that is malformed, reversed, or outside the picture."""


class GenerationError(InputError):
    """Signals a generation option that is out of range."""


class ExportError(FlorenceError):
    """Signals a checkpoint that cannot be exported."""


class DiskSpaceError(ExportError, ModelError, OSError):
    """Signals a disk with too little free space for the files of a model."""


class FolderBusyError(ExportError):
    """Signals that another process is writing to the folder."""


class CheckpointError(ExportError, ValueError):
    """Signals files, keys, shapes or a configuration of no Florence-2 checkpoint."""


class ValidationError(ExportError):
    """Signals an exported graph that does not agree with PyTorch within the tolerance."""


class OutputExistsError(FlorenceError, FileExistsError):
    """Signals an output that exists and may not be overwritten."""


class MissingDependencyError(FlorenceError, ImportError):
    """Signals an optional package that is needed and not installed."""


class ModelWarning(UserWarning):
    """Warns of a property of a model that the user should know, although the model works."""
