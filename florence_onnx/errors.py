"""Exceptions of florence_onnx and of the exporter.

::

    FlorenceError
    ├── ModelError                    a model folder cannot be used
    │   ├── ModelNotFoundError        (FileNotFoundError) no such folder or hub id
    │   ├── ModelFileError            (OSError) a file is missing, truncated or foreign
    │   ├── GraphContractError        (ValueError) a graph has other inputs or outputs
    │   ├── GraphRunError             (RuntimeError) a graph failed, or returned NaN or other shapes
    │   ├── TokenizerError            (ValueError) the tokenizer is none of a Florence-2
    │   ├── PrecisionError            (ValueError) the folder has no graphs of this precision
    │   ├── SessionOptionsError       (ValueError) wrong session options, or threads= besides
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
        """The message, with control characters of names that strangers chose spelled out."""
        return printable(super().__str__(), keep="\n\t")


class ModelError(FlorenceError):
    """A model folder cannot be used."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """Signals that no folder or hub repository has this name."""


class ModelFileError(ModelError, OSError):
    """A file of a model is missing, truncated or of another kind than its name says."""


class GraphContractError(ModelError, ValueError):
    """A graph's inputs or outputs are not those of the graph contract."""


class GraphRunError(ModelError, RuntimeError):
    """A graph failed in a run, or returned NaN or a shape that the graph does not declare."""


class TokenizerError(ModelError, ValueError):
    """The tokenizer is not of the kind of Florence-2, or lacks tokens that Florence-2 needs."""


class PrecisionError(ModelError, ValueError):
    """The model folder holds no graphs of the precision asked for."""


class SessionOptionsError(ModelError, ValueError):
    """The value of ``session_options=`` is of another type, or contradicts another option."""


class ProviderError(ModelError, RuntimeError):
    """An execution provider was asked for and could not be had."""


class InputError(FlorenceError, ValueError):
    """A request is wrong and cannot be answered."""


class ImageError(InputError):
    """The image is not a picture the model can read."""


class TaskError(InputError):
    """The task is unknown, or text is missing, or the task takes no text."""


class RegionError(InputError):
    """The region is malformed, reversed, or outside the picture."""


class GenerationError(InputError):
    """A generation option is out of range."""


class ExportError(FlorenceError):
    """A checkpoint cannot be exported."""


class DiskSpaceError(ExportError, ModelError, OSError):
    """A disk has too little free space for the files of a model."""


class FolderBusyError(ExportError):
    """Another process is writing to the folder."""


class CheckpointError(ExportError, ValueError):
    """Files, keys, shapes or configuration are not those of a Florence-2 checkpoint."""


class ValidationError(ExportError):
    """An exported graph does not agree with PyTorch within the tolerance."""


class OutputExistsError(FlorenceError, FileExistsError):
    """The output exists and overwriting it was not asked for."""


class MissingDependencyError(FlorenceError, ImportError):
    """An optional package is needed and not installed."""


class ModelWarning(UserWarning):
    """Notes what the user of a model should know, although the model works."""
