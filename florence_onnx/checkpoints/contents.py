"""Contents of a folder or a repository, found from the names of the files. No file is read."""

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
"""Names of the files of weights. The first file that exists is read, as in transformers."""

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
"""Names of the files of an adapter's weights. The first file that exists is read, as in peft."""

_KNOWN_WEIGHTS = (*WEIGHT_FILES, *ADAPTER_FILES)

# Folders that transformers' Trainer names, and any other folder with weights.
_CHECKPOINT = re.compile(rf"(checkpoint-[0-9]+)/.+|([^/]+)/(?:{'|'.join(WEIGHT_FILES)})")
_SHARD = re.compile(r"-[0-9]+-of-[0-9]+\.")
_SHOWN = 5


@dataclass(frozen=True)
class Contents:
    """Contents of a folder or a repository, as the names of the files tell."""

    source: str
    """Folder or hub id, as the caller wrote it."""
    names: Collection[str]
    """Names of files relative to the folder or repository, with ``/`` between folders."""
    on_hub: bool = True
    """Tells whether the files are in a repository of the hub."""

    @classmethod
    def of_folder(cls, folder: Path) -> "Contents":
        """Lists the files that `Contents` looks at: in the folder and one level below."""
        patterns = ("*", "onnx/*", "checkpoint-*/*", *(f"*/{name}" for name in WEIGHT_FILES))
        paths = [path for pattern in patterns for path in folder.glob(pattern)]
        return cls(str(folder), {path.relative_to(folder).as_posix() for path in paths}, False)

    @property
    def has_graphs(self) -> bool:
        """Tells whether there are graphs in the folder ``onnx``."""
        return any(re.fullmatch(r"onnx/[^/]+\.onnx", name) for name in self.names)

    @property
    def has_weights(self) -> bool:
        """Tells whether there are weights of a checkpoint."""
        return any(name in self.names for name in WEIGHT_FILES)

    @property
    def is_checkpoint(self) -> bool:
        """Tells whether there is a checkpoint and no graph."""
        return self.has_weights and "config.json" in self.names and not self.has_graphs

    @property
    def is_adapter(self) -> bool:
        """Tells whether there is an adapter without its base model."""
        whole = self.has_weights and "config.json" in self.names
        return ADAPTER_CONFIG in self.names and not whole

    @property
    def has_adapter(self) -> bool:
        """Tells whether there is a whole adapter, alone or beside the weights of a checkpoint."""
        return ADAPTER_CONFIG in self.names and any(name in self.names for name in ADAPTER_FILES)

    @property
    def checkpoints(self) -> list[str]:
        """Folders inside that hold checkpoints; numbered folders in the order of the numbers."""
        found = {match[1] or match[2] for match in map(_CHECKPOINT.fullmatch, self.names) if match}
        return sorted(found, key=_in_order)

    @property
    def bare_weights(self) -> list[str]:
        """Safetensors files without the name of a checkpoint's or an adapter's weights, sorted."""
        return sorted(
            name
            for name in self.names
            if re.fullmatch(r"[^/]+\.safetensors", name) and name not in _KNOWN_WEIGHTS
        )

    def other_weights(self, read: Collection[str]) -> list[str]:
        """Names of the files that hold weights too, but are not read; shards have an index.

        Args:
            read: Names of the files that are read.
        """
        bare = [name for name in self.bare_weights if not _SHARD.search(name)]
        names = (*[name for name in WEIGHT_FILES if name in self.names], *bare)
        return [name for name in names if name not in read]

    def why_no_model(self) -> str | None:
        """Reason why this is no model folder, and what to do; None for a possible model folder."""
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
        """Reason why this is no checkpoint, and what to do; None for a checkpoint.

        Args:
            is_completed: Whether the files that are missing beside the weights are taken from
                another model.
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
        """End of a message that names the checkpoints in folders inside; empty without any."""
        return f"; {self.source} also {self._held()}" if self.checkpoints else ""

    def _held(self) -> str:
        names = self.checkpoints
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        held = f"holds checkpoints: {', '.join(names[-_SHOWN:])}{more}; "
        last = names[-1]
        return f"{held}export one of them, as in {self._export(self._below + last)}"

    @property
    def _below(self) -> str:
        """Text between the source and the name of a file in the source."""
        return ":" if self.on_hub and ":" not in self.source else "/"

    def _export(self, folder: str = "") -> str:
        return f"florence-onnx export {self._quoted(folder)} OUT"

    def _quoted(self, folder: str = "") -> str:
        return shlex.quote(self.source + folder)


def _in_order(name: str) -> tuple[int, str, str]:
    digits = re.sub("[^0-9]", "", name).lstrip("0")
    return len(digits), digits, name
