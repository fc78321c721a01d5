"""Generation policy of a model folder, from its files."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from florence_onnx.errors import GenerationError, ModelFileError
from florence_onnx.generation import checks
from florence_onnx.generation.policy import FORCED, OF_THE_MODEL, SPECIAL, GenerationPolicy
from florence_onnx.generation.rules import AnswerRules
from florence_onnx.generation.settings import in_new_tokens, of_model_config, shorten
from florence_onnx.tokenizer import Tokenizer

_READ = (
    {field.name for field in dataclasses.fields(GenerationPolicy)}
    - {field.name for field in dataclasses.fields(AnswerRules)}
    - {*OF_THE_MODEL}
)


def read_policy(
    generation_config: Mapping[str, Any],
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    max_positions: int,
    vocab_size: int = 1 << 31,
) -> GenerationPolicy:
    """Reads the policy of a model folder.

    A setting that generation_config.json lacks is looked up in ``text_config``, where the released
    checkpoints keep such settings, and else is as in transformers; without a limit there, answers
    may be as long as the decoder's positions allow, where transformers stops after 20 tokens unless
    the caller names a limit. The ids at the top level of config.json are never read: many
    fine-tunes carry wrong ids.

    Args:
        generation_config: The content of generation_config.json.
        config: The content of config.json.
        tokenizer: Tells the ids of ``<s>``, ``</s>`` and ``<pad>``.
        max_positions: Positions of the decoder.
        vocab_size: Tokens that the model knows.

    Raises:
        ModelFileError: The ids in generation_config.json are not the tokenizer's, or a setting is
            out of range.
    """
    found, origins = _said(generation_config, config, max_positions)
    found = {
        "decoder_start_token_id": tokenizer.eos_token_id,
        "max_new_tokens": max_positions,
        **found,
        **{name: _special(generation_config, name, tokenizer) for name in SPECIAL},
        "max_positions": max_positions,
        "vocab_size": vocab_size,
    }
    least, most = found.get("min_new_tokens"), found["max_new_tokens"]
    if checks.is_integer(least) and checks.is_integer(most) and most < least <= max_positions:
        found["min_new_tokens"] = most  # Transformers stops at the positions too.
    try:
        return GenerationPolicy(**found)
    except GenerationError as error:
        name = str(error).partition(" ")[0]
        raise ModelFileError(f"{origins.get(name, 'tokenizer.json: ')}{error}") from error


def _said(
    generation_config: Mapping[str, Any], config: Mapping[str, Any], max_positions: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Reads the settings in the files, and the beginning of a message about each setting."""
    sources = {
        "generation_config.json: ": generation_config,
        "config.json: text_config.": of_model_config(config.get("text_config") or {}),
    }
    found: dict[str, Any] = {}
    origins = dict.fromkeys(OF_THE_MODEL, "config.json: ")
    for origin, source in sources.items():
        try:
            said = in_new_tokens(shorten(source, max_positions)[0], max_positions)
        except GenerationError as error:
            raise ModelFileError(f"{origin}{error}") from error
        for name in _READ - {*origins}:
            # A null means "not said", except that null switches off a forced token.
            if said.get(name) is not None or (name in FORCED and name in said):
                found[name] = said[name]
                origins[name] = origin
    return found, origins


def _special(said: Mapping[str, Any], name: str, tokenizer: Tokenizer) -> Any:
    """Returns the tokenizer's id; for the end token, all end tokens in the file."""
    stored, right = said.get(name), getattr(tokenizer, name)
    if stored is None:
        return right
    several = name == "eos_token_id" and isinstance(stored, list) and right in stored
    if stored != right and not several:
        raise ModelFileError(
            f"generation_config.json: {name} is {checks.shown(stored)}, but {right} in "
            "tokenizer.json; export the checkpoint again, which repairs it, or correct the file"
        )
    return stored
