"""Contents of a folder or a repository, told by the names of its files: none is read."""

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names that weights are looked up under; the first that exists is read, as in transformers."""

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
"""Names of an adapter's weights; the first that exists is read, as in peft."""

_KNOWN_WEIGHTS = (*WEIGHT_FILES, *ADAPTER_FILES)

# Folders that transformers' Trainer names, and any other folder with weights.
_CHECKPOINT = re.compile(rf"(checkpoint-[0-9]+)/.+|([^/]+)/(?:{'|'.join(WEIGHT_FILES)})")
_SHOWN = 5


@dataclass(frozen=True)
class Contents:
    """The contents that the names of files tell."""

    source: str
    """The folder or hub id, as it was given."""
    names: Collection[str]
    """Names relative to it, with ``/`` between folders."""
    on_hub: bool = True
    """Tells whether the files are those of a repository."""

    @classmethod
    def of_folder(cls, folder: Path) -> "Contents":
        """The names that `Contents` looks at: those in the folder and one folder below."""
        patterns = ("*", "onnx/*", "checkpoint-*/*", *(f"*/{name}" for name in WEIGHT_FILES))
        paths = [path for pattern in patterns for path in folder.glob(pattern)]
        return cls(str(folder), {path.relative_to(folder).as_posix() for path in paths}, False)

    @property
    def has_graphs(self) -> bool:
        """Tells whether there are graphs where a model folder has them."""
        return any(re.fullmatch(r"onnx/[^/]+\.onnx", name) for name in self.names)

    @property
    def has_weights(self) -> bool:
        """Tells whether there are the weights of a checkpoint."""
        return any(name in self.names for name in WEIGHT_FILES)

    @property
    def is_checkpoint(self) -> bool:
        """Tells whether there is a checkpoint, and no graphs made of it."""
        return self.has_weights and "config.json" in self.names and not self.has_graphs

    @property
    def is_adapter(self) -> bool:
        """Tells whether there is an adapter without the model it belongs to."""
        whole = self.has_weights and "config.json" in self.names
        return ADAPTER_CONFIG in self.names and not whole

    @property
    def checkpoints(self) -> list[str]:
        """The folders in it that hold checkpoints, those with numbers in the numbers' order."""
        found = {match[1] or match[2] for match in map(_CHECKPOINT.fullmatch, self.names) if match}
        return sorted(found, key=_in_order)

    @property
    def bare_weights(self) -> list[str]:
        """Safetensors files that are neither a checkpoint's nor an adapter's, in order."""
        return sorted(
            name
            for name in self.names
            if re.fullmatch(r"[^/]+\.safetensors", name) and name not in _KNOWN_WEIGHTS
        )

    def why_no_model(self) -> str | None:
        """Says what this is instead of a model folder, and what to do; None if it may be one."""
        if self.has_graphs:
            return None
        if self.is_adapter:
            return (
                f"{self.source} is an adapter, not a model folder; merge it into its base model "
                f"with {self._export()} and open OUT"
            )
        if self.has_weights:
            return (
                f"{self.source} is a checkpoint, not a model folder; export it with "
                f"{self._export()} and open OUT"
            )
        if self.checkpoints:
            return f"{self.source} is no model folder, but {self._held()}"
        if any(re.fullmatch(r"[^/]+\.onnx", name) for name in self.names):
            return (
                f"{self.source} holds graphs, but a model folder holds them in its folder onnx; "
                "give the folder with config.json"
            )
        return None

    def why_no_checkpoint(self, is_completed: bool = False) -> str | None:
        """Says what this is instead of a checkpoint, and what to do; None if it has weights.

        Args:
            is_completed: Whether what is missing beside the weights comes from another model.
        """
        if self.has_weights and is_completed:
            return None
        if self.is_adapter:
            return f"{self.source} holds an adapter only; merge it with {self._export()}"
        if self.has_weights and "config.json" not in self.names:
            return (
                f"{self.source} holds weights, but config.json does not exist there; take that "
                "of the model that was fine-tuned, as with --companions microsoft/Florence-2-base"
            )
        if self.has_weights:
            return None
        if self.has_graphs:
            return (
                f"{self.source} is a model of ONNX graphs, not a checkpoint: it needs no export. "
                f"Run it with florence-onnx run IMAGE --task TASK --model {self._quoted()}"
            )
        if self.checkpoints:
            return f"{self.source} is no checkpoint, but {self._held()}"
        if self.bare_weights:
            name = self.bare_weights[0]
            return (
                f"{self.source} holds no {WEIGHT_FILES[0]}, but {name}; name the file, as in "
                f"{self._export(self._below + name)}"
            )
        return f"{self.source} holds no weights; looked for {', '.join(WEIGHT_FILES)}"

    def hint(self) -> str:
        """Words about the checkpoints in folders of it, for the end of a message; else nothing."""
        return f"; {self.source} also {self._held()}" if self.checkpoints else ""

    def _held(self) -> str:
        names = self.checkpoints
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        held = f"holds checkpoints: {', '.join(names[-_SHOWN:])}{more}; "
        last = names[-1]
        return f"{held}export one of them, as in {self._export(self._below + last)}"

    @property
    def _below(self) -> str:
        """Text between this place and the name of a file in this place."""
        return ":" if self.on_hub and ":" not in self.source else "/"

    def _export(self, folder: str = "") -> str:
        return f"florence-onnx export {self._quoted(folder)} OUT"

    def _quoted(self, folder: str = "") -> str:
        return shlex.quote(self.source + folder)


def _in_order(name: str) -> tuple[int, str, str]:
    digits = re.sub("[^0-9]", "", name).lstrip("0")
    return len(digits), digits, name
