"""Names of stored weights: parts that frameworks add, and weights that are not Florence-2's."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from florence_onnx.errors import CheckpointError

T = TypeVar("T")

_WRAPPERS = re.compile(
    r"(?<![^.])(?:(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
    r"|(?:base_layer|modules_to_save\.default)\.)"
)
"""Parts of names that data parallel training, torch.compile, FSDP and peft add."""
_REPLACED = re.compile(r"(?<![^.])original_module\.")
"""Part of the name of a module that peft's ``modules_to_save`` has replaced."""
_ANCHOR = re.compile(r"(.*?)(model\.)?vision_tower\.convs\.0\.(conv|proj)\.weight")
"""Weight that every checkpoint has, under transformers' or Microsoft's name."""

_PARTS = re.compile(
    r"(?:vision_tower\.(?!head\.|norms\.)|image_projection$|image_proj_norm\.|image_pos_embed\."
    r"|visual_temporal_embed\.|language_model\.|lm_head\.|final_logits_bias$"
    r"|model\.(?:vision_tower|multi_modal_projector|language_model)\.)"
)
"""Beginnings of the names of Florence-2's weights. The classifier of DaViT, which Microsoft's code
deletes, is not among these parts."""
_INSIDE = re.compile(r"adapter|lora_", re.IGNORECASE)
"""Parts of names of weights that change the output of Florence-2's own modules."""
_SHOWN = 12


@dataclass(frozen=True)
class Dropped:
    """Stored tensors that belong to no part of Florence-2."""

    names: tuple[str, ...]
    """Names of the tensors, sorted."""

    def __str__(self) -> str:
        """Sentence for the user that names the modules of the tensors."""
        modules = sorted({name.rpartition(".")[0] or name for name in self.names})
        roots = sorted({_root(module) for module in modules})
        more = f" and {len(roots) - _SHOWN} more" if len(roots) > _SHOWN else ""
        shown = ", ".join(root[:100] for root in roots[:_SHOWN])
        return (
            f"{shown}{more} ({_count(self.names)}) are no part of a Florence-2 and were left out; "
            "what they compute is not exported"
        )


def plain_names(stored: Mapping[str, T]) -> tuple[dict[str, T], list[str]]:
    """Removes the parts that training frameworks add to the names of weights.

    Args:
        stored: Weights by stored names.

    Returns:
        The weights by plain names, and a sentence that names the removed parts.

    Raises:
        CheckpointError: Two weights have the same plain name.
    """
    kept = {name: tensor for name, tensor in stored.items() if not _REPLACED.search(name)}
    prefix, missing = _prefix(kept)
    plain: dict[str, str] = {}
    taken: set[str] = set()
    for name in kept:
        short = _WRAPPERS.sub("", name)
        if name != short:
            taken.update(found.rstrip(".") for found in _WRAPPERS.findall(name))
        if prefix and short.startswith(prefix):
            short = short.removeprefix(prefix)
            taken.add(prefix.rstrip("."))
        if missing and not short.startswith(("lm_head.", "final_logits_bias")):
            short = missing + short
        if short in plain:
            raise CheckpointError(
                f"{plain[short][:200]!r} and {name[:200]!r} are both the weight {short[:200]}; "
                "save one of the two models alone"
            )
        plain[short] = name
    notes = []
    if taken:
        shown = ", ".join(sorted(f"{part}." for part in taken))
        notes.append(f"names of weights held {shown[:200]}, which were taken off")
    return {short: stored[name] for short, name in plain.items()}, notes


def split_extra(names: Iterable[str]) -> Dropped:
    """Finds the weights that belong to no part of Florence-2 and do not change the output."""
    return Dropped(tuple(sorted(n for n in names if not _PARTS.match(n) and not _INSIDE.search(n))))


def _prefix(names: Iterable[str]) -> tuple[str, str]:
    """Prefix of all names of a model, and the prefix ``model.`` where the names lack it."""
    found = [m for m in (_ANCHOR.fullmatch(_WRAPPERS.sub("", name)) for name in names) if m]
    if not found:
        return "", ""
    anchor = min(found, key=lambda match: len(match[1]))
    before, model = anchor[1], anchor[2] or ""
    if anchor[3] == "proj":
        return before + model, ""
    return before, "" if model else "model."


def _root(module: str) -> str:
    """Name of the top module, or of the module below where the top module is Florence-2's own."""
    parts = module.split(".")
    return ".".join(parts[:2] if parts[0] in ("model", "vision_tower") else parts[:1])


def _count(names: tuple[str, ...]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) > 1)}"
