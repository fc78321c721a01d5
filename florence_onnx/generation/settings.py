"""Settings for generation in the files of a checkpoint, under transformers' names.

Every setting of transformers' ``GenerationConfig`` is of one of three kinds: options of
`GenerationPolicy`, which the search follows token for token; settings that change how transformers
computes an answer, but not the answer; and settings that are not supported, which `notes` names.
"""

from collections.abc import Mapping
from typing import Any

from florence_onnx.generation.checks import is_integer, require, shown

UNSAID: dict[str, Any] = {
    "max_length": None,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "num_beams": 1,
    "num_return_sequences": 1,
    "early_stopping": False,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "renormalize_logits": False,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "do_sample": False,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": 0.0,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
    "forced_decoder_ids": None,
    "guidance_scale": 1.0,
    "token_healing": False,
    "watermarking_config": None,
    "stop_strings": None,
    "max_time": None,
}
"""Settings that change answers -> default in transformers, with one difference: without a limit,
transformers stops after 20 tokens; here an answer may fill the decoder's positions."""

_UNSUPPORTED = {
    "do_sample": "answers are searched, not sampled",
    "num_beam_groups": "all beams are searched as one group",
    "diversity_penalty": "beams are not kept apart",
    "penalty_alpha": "the search is not contrastive",
    "dola_layers": "layers are not contrasted",
    "constraints": "answers are not constrained",
    "force_words_ids": "words are not forced",
    "forced_decoder_ids": "only the first and the last token can be forced",
    "guidance_scale": "answers are not guided",
    "token_healing": "prompts are read as they are",
    "watermarking_config": "answers carry no watermark",
    "stop_strings": "answers do not end there",
    "max_time": "answers take the time that they take",
}
"""Setting that is not supported -> consequence, for messages."""

_SAMPLING = {
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""Settings that only matter to sampling."""

_WITHOUT_EFFECT = (
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "continuous_batching_config",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "remove_invalid_values",
    "return_dict_in_generate",
    "return_legacy_cache",
    "speculation_type",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
    "use_mtp",
)
"""Settings without an effect on answers: speed, cache, further results, and the treatment of NaN
among logits, which graphs never return."""

_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
"""Settings for ids, which have no default."""

_OLD_FORCED_START = "force_bos_token_to_be_generated"
"""Former name of ``forced_bos_token_id`` in BART's configurations, which transformers knows."""

OPTIONS = (*UNSAID, *_SAMPLING)
"""Settings that change answers, supported or not, except ids."""

SETTINGS = (*OPTIONS, *_TOKENS)
"""Settings of `OPTIONS`, and ids."""


def is_unsaid(name: str, value: Any) -> bool:
    """Tells whether a setting has no effect, as if it were left out."""
    return value is None or value == (UNSAID | _SAMPLING).get(name)


def shorten(said: Mapping[str, Any], max_positions: int) -> tuple[dict[str, Any], list[str]]:
    """Cuts lengths in the settings of a checkpoint to the decoder's positions.

    Transformers fails where an answer becomes longer than the positions.

    Args:
        said: Settings under transformers' names.
        max_positions: Positions of the decoder.

    Returns:
        The settings, and a sentence for every length corrected.
    """
    result, sentences = dict(said), []
    for end in ("max", "min"):
        for name, most in (
            (f"{end}_length", max_positions + 1),
            (f"{end}_new_tokens", max_positions),
        ):
            value = result.get(name)
            if is_integer(value) and value > most:
                result[name] = most
                sentences.append(
                    f"generation_config.json: {name} was {value}, is {most}, "
                    "as far as the positions of the decoder reach"
                )
    return result, sentences


def in_new_tokens(said: Mapping[str, Any], max_positions: int) -> dict[str, Any]:
    """Translates ``max_length`` and ``min_length``, which count the start token.

    As in transformers, ``max_new_tokens`` and ``min_new_tokens`` win where both forms are given.

    Args:
        said: Settings under transformers' names.
        max_positions: Positions of the decoder.

    Raises:
        GenerationError: A length is out of range or no whole number.
    """
    result = dict(said)
    for end, least in (("max", 2), ("min", 0)):
        length = result.pop(f"{end}_length", None)
        if length is not None and result.get(f"{end}_new_tokens") is None:
            most = max_positions + 1
            holds = is_integer(length) and least <= length <= most
            allowed = f"a whole number from {least} to {most}, as the start token counts"
            require(holds, f"{end}_length", length, allowed)
            result[f"{end}_new_tokens"] = max(length - 1, 0)
    return result


def of_model_config(section: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the generation settings in config.json or in a section of config.json."""
    found = {name: section[name] for name in SETTINGS if name in section}
    # Transformers 4 wrote all defaults into a nested section, and ignored the length among these
    # defaults.
    if "typical_p" in section and found.get("max_length") == 20:
        del found["max_length"]
    if section.get(_OLD_FORCED_START) is True and found.get("forced_bos_token_id") is None:
        found["forced_bos_token_id"] = section.get("bos_token_id")
    return found


def notes(said: Mapping[str, Any]) -> list[str]:
    """Lists the settings that the search does not follow.

    Args:
        said: The content of generation_config.json.

    Returns:
        A sentence for every setting that changes answers in transformers and not here.
    """
    sentences = []
    for name, meaning in _UNSUPPORTED.items():
        value = said.get(name)
        if not is_unsaid(name, value):
            given = _sampling(said) if name == "do_sample" else ""
            sentences.append(f"{name} is {shown(value)}, which is not supported: {meaning}{given}")
    known = {*SETTINGS, *_WITHOUT_EFFECT}
    sentences += [
        f"{shown(name)} is no setting that is known here, and has no effect"
        for name in said
        if name not in known and not name.startswith("_")
    ]
    return [f"generation_config.json: {sentence}" for sentence in sentences]


def _sampling(said: Mapping[str, Any]) -> str:
    given = [
        f"{name} {shown(said[name])}" for name in _SAMPLING if not is_unsaid(name, said.get(name))
    ]
    return f" ({', '.join(given)})" if given else ""
