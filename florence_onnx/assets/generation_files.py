"""File generation_config.json: the search of a checkpoint, complete and with the right ids."""

from collections.abc import Mapping, Sequence
from typing import Any

from florence_onnx.checkpoints.config import is_native
from florence_onnx.generation.checks import shown
from florence_onnx.generation.settings import SETTINGS, UNSAID, is_unsaid, of_model_config
from florence_onnx.tokenizer import Tokenizer

IDS = {"bos_token_id": "<s>", "eos_token_id": "</s>", "pad_token_id": "<pad>"}

_ALWAYS = (
    "num_beams",
    "early_stopping",
    "no_repeat_ngram_size",
    "length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
)
"""Settings that are always written."""

_OF_THE_PROMPT = ("encoder_no_repeat_ngram_size", "encoder_repetition_penalty")
_START = "decoder_start_token_id"
_BOOKKEEPING = ("_from_model_config", "_commit_hash", "transformers_version")


def generation_config(
    config: Mapping[str, Any], saved: Mapping[str, Any] | None, tokenizer: Tokenizer
) -> tuple[dict[str, Any], list[str]]:
    """Makes the content of a complete generation_config.json.

    The settings are those with which the reference generates. Transformers reads config.json, and
    ``text_config`` in config.json, only where there is no generation_config.json. Microsoft's code
    generates with its language model, which reads ``text_config`` alone. A checkpoint without any
    setting for generation gets the released settings.

    Args:
        config: The content of the checkpoint's config.json.
        saved: The content of the checkpoint's generation_config.json, None where there is none.
        tokenizer: The checkpoint's tokenizer, which tells the ids.

    Returns:
        The content, and a sentence for every setting that differs from the checkpoint's files.
    """
    text = of_model_config(config.get("text_config") or {})
    if not is_native(config):
        sources: Sequence[Mapping[str, Any]] = [_implied(tokenizer) | text]
    else:
        sources = [of_model_config(config), text] if saved is None else [saved]
    said = {name: _first(sources, name) for name in SETTINGS}
    repairs = []
    released = _released(tokenizer)
    if saved is None and all(said[name] is None for name in released):
        said |= released | {"bos_token_id": None}
        repairs.append(
            "generation_config.json: the checkpoint does not say how it generates; "
            "the settings of the released models are written"
        )
    result = {name: value for name, value in said.items() if not is_unsaid(name, value)}
    result |= {name: UNSAID[name] if said[name] is None else said[name] for name in _ALWAYS}
    if not is_native(config):
        repairs += _without_prompt(result) + _overruled(saved or {}, result)
    # Transformers starts from <s> without a setting.
    start = _first([said, {_START: said["bos_token_id"]}, text], _START)
    if isinstance(start, list) and len(start) == 1:
        (start,) = start  # Transformers takes a list as one start token per request.
    result[_START] = tokenizer.eos_token_id if start is None else start
    for name, value in (saved or {}).items():
        if name not in (*SETTINGS, *_BOOKKEEPING):
            result[name] = value
    stored = {name: (saved or {}).get(name) for name in IDS}
    repairs += repair_ids(stored, "generation_config.json", tokenizer)
    ends = said["eos_token_id"]
    for name in IDS:
        result[name] = getattr(tokenizer, name)
    if isinstance(ends, list) and len(ends) > 1 and tokenizer.eos_token_id in ends:
        result["eos_token_id"] = ends
    return result, repairs


def repair_ids(section: dict[str, Any], name: str, tokenizer: Tokenizer) -> list[str]:
    """Corrects the ids of ``<s>``, ``</s>`` and ``<pad>`` that ``section`` holds, in place.

    Args:
        section: A section of config.json or the content of generation_config.json.
        name: The section's name in the sentences.
        tokenizer: The checkpoint's tokenizer, which tells the ids.

    Returns:
        A sentence for every id corrected.
    """
    repairs = []
    for field, token in IDS.items():
        stored, right = section.get(field), getattr(tokenizer, field)
        # Several tokens may end an answer.
        is_right = right in stored if isinstance(stored, list) else stored in (None, right)
        if not is_right:
            repairs.append(f"{name}: {field} was {shown(stored)}, is {right} ({token})")
            section[field] = right
    return repairs


def unlimited(settings: Mapping[str, Any], max_positions: int) -> list[str]:
    """Returns a sentence where the settings of a checkpoint do not limit the length of answers."""
    if settings.get("max_length") is not None or settings.get("max_new_tokens") is not None:
        return []
    return [
        f"generation_config.json: no length is given, so answers may have {max_positions} tokens; "
        "transformers stops after 20 unless the caller names a length"
    ]


def _implied(tokenizer: Tokenizer) -> dict[str, Any]:
    """Defaults of Microsoft's code for settings that a ``text_config`` leaves out."""
    end = tokenizer.eos_token_id
    return {_START: end, "forced_eos_token_id": end}


def _without_prompt(result: dict[str, Any]) -> list[str]:
    """Removes settings about the prompt's tokens, which Microsoft's code does not pass on."""
    return [
        f"generation_config.json: {name} {shown(result.pop(name))} in text_config is left out: "
        "it has no effect in Microsoft's code"
        for name in _OF_THE_PROMPT
        if name in result
    ]


def _overruled(saved: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Finds settings of generation_config.json that ``text_config`` contradicts."""
    sentences = []
    for name in (_START, *UNSAID):
        was, now = saved.get(name), result.get(name, UNSAID.get(name))
        if was not in (None, now):
            told = f"{name} was {shown(was)}, is {shown(now)} as in text_config"
            sentences.append(f"generation_config.json: {told}")
    return sentences


def _first(sources: Sequence[Mapping[str, Any]], name: str) -> Any:
    return next((source[name] for source in sources if source.get(name) is not None), None)


def _released(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "num_beams": 3,
        "early_stopping": True,
        "no_repeat_ngram_size": 3,
        "forced_bos_token_id": tokenizer.bos_token_id,
    }
