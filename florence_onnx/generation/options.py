"""Options of a call, as a type."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class GenerationOptions(TypedDict, total=False):
    """Overrides of a checkpoint's `GenerationPolicy`, where the fields are documented.

    ``max_length`` and ``min_length`` are ``max_new_tokens`` and ``min_new_tokens`` with the start
    token counted.
    """

    decoder_start_token_id: int
    bos_token_id: int
    eos_token_id: int | Sequence[int]
    pad_token_id: int
    max_new_tokens: int
    max_length: int
    min_new_tokens: int
    min_length: int
    num_beams: int
    num_return_sequences: int
    early_stopping: bool | Literal["never"]
    length_penalty: float
    no_repeat_ngram_size: int
    encoder_no_repeat_ngram_size: int
    repetition_penalty: float
    encoder_repetition_penalty: float
    exponential_decay_length_penalty: Sequence[float] | None
    bad_words_ids: Sequence[Sequence[int]] | None
    suppress_tokens: Sequence[int] | None
    begin_suppress_tokens: Sequence[int] | None
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[tuple[Sequence[int], float]] | None
    renormalize_logits: bool
    forced_bos_token_id: int | Sequence[int] | None
    forced_eos_token_id: int | Sequence[int] | None
    min_score: float
    constrain: bool
    labels: Sequence[str] | None
    recall: float | None
