"""generation_config.json: how a checkpoint searches its answers, complete and with right ids."""

from collections.abc import Mapping
from typing import Any

from florence_onnx.checkpoints.config import is_native
from florence_onnx.tokenizer import Tokenizer

IDS = {"bos_token_id": "<s>", "eos_token_id": "</s>", "pad_token_id": "<pad>"}

_UNSAID = {
    "num_beams": 1,
    "early_stopping": False,
    "no_repeat_ngram_size": 0,
    "length_penalty": 1.0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
}
"""What transformers takes for a setting that a checkpoint leaves out."""


def generation_config(
    config: Mapping[str, Any], saved: Mapping[str, Any] | None, tokenizer: Tokenizer
) -> tuple[dict[str, Any], list[str]]:
    """The content of a complete generation_config.json.

    The settings are those that the reference generates with. Microsoft's code generates with its
    language model, so there ``text_config`` counts before generation_config.json; transformers
    reads ``config`` only where there is no generation_config.json. A checkpoint without a word on
    generation gets the released settings.

    Args:
        config: The content of the checkpoint's config.json.
        saved: The content of its generation_config.json, None where there is none.
        tokenizer: The checkpoint's tokenizer, which tells the ids.

    Returns:
        The content, and a sentence for everything in it that the checkpoint says otherwise.
    """
    text = config.get("text_config") or {}
    if is_native(config):
        sources = [saved] if saved is not None else [config, text]
    else:
        sources = [text, saved or {}]
    said = {name: _first(sources, name) for name in _UNSAID}
    repairs = []
    released = _released(tokenizer)
    if saved is None and all(said[name] is None for name in released):
        said |= released
        repairs.append(
            "generation_config.json: the checkpoint does not say how it generates; "
            "the settings of the released models are written"
        )
    result = dict(saved or {})
    for name, unsaid in _UNSAID.items():
        value = unsaid if said[name] is None else said[name]
        if result.get(name) not in (None, value):
            repairs.append(
                f"generation_config.json: {name} was {result[name]}, is {value} as in text_config"
            )
        result[name] = value
    start = _first([text, *sources], "decoder_start_token_id")
    result["decoder_start_token_id"] = tokenizer.eos_token_id if start is None else start
    repairs += repair_ids(result, "generation_config.json", tokenizer)
    for name in IDS:
        result[name] = getattr(tokenizer, name)
    for name in ("_from_model_config", "transformers_version"):
        result.pop(name, None)
    return result, repairs


def repair_ids(section: dict[str, Any], name: str, tokenizer: Tokenizer) -> list[str]:
    """Corrects the ids of ``<s>``, ``</s>`` and ``<pad>`` that ``section`` holds, in place.

    Args:
        section: A section of config.json or the content of generation_config.json.
        name: What sentences call it.
        tokenizer: The checkpoint's tokenizer, which tells the ids.

    Returns:
        A sentence for every id corrected.
    """
    repairs = []
    for field, token in IDS.items():
        right = getattr(tokenizer, field)
        if section.get(field) not in (None, right):
            repairs.append(f"{name}: {field} was {section[field]}, is {right} ({token})")
            section[field] = right
    return repairs


def _first(sources: list[Mapping[str, Any]], name: str) -> Any:
    return next((source[name] for source in sources if source.get(name) is not None), None)


def _released(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "num_beams": 3,
        "early_stopping": True,
        "no_repeat_ngram_size": 3,
        "forced_bos_token_id": tokenizer.bos_token_id,
    }
