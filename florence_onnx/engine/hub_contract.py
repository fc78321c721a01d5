"""Tensors of the graphs of Florence-2 on the hub, written for transformers.js.

Tensors of floats may be float16 in all of these graphs.
"""

from florence_onnx.engine.contract import (
    BOOL,
    EMBED_TOKENS,
    ENCODER,
    FLOAT,
    FLOAT16,
    INT64,
    VISION_ENCODER,
    Signature,
    Tensor,
)

MERGED_DECODER = "decoder_model_merged"
FIRST_DECODER = "decoder_model"
LATER_DECODER = "decoder_with_past_model"

SUFFIXES = {
    **{"fp32": "", "fp16": "fp16", "q8": "quantized", "q4": "q4"},
    **{"int8": "int8", "uint8": "uint8", "q4f16": "q4f16", "bnb4": "bnb4"},
}
"""Precision, by the name in transformers.js -> suffix of the graph files."""

MASK, STATES, SWITCH = "encoder_attention_mask", "encoder_hidden_states", "use_cache_branch"

_FLOATS = f"{FLOAT} or {FLOAT16}"

OWN_CACHE = Tensor(_FLOATS, ("batch", "decoder_heads", "past", "head_dim"))
"""Keys or values of the decoder's self-attention."""
CROSS_CACHE = Tensor(_FLOATS, ("batch", "decoder_heads", "sequence", "head_dim"))
"""Keys or values of the cross-attention, which are kept from the first step on."""

_PRESENT = {
    "logits": Tensor(_FLOATS, ("batch", "tokens", "vocabulary")),
    "present.{i}.decoder.key": OWN_CACHE,
    "present.{i}.decoder.value": OWN_CACHE,
}
_CROSS = {"present.{i}.encoder.key": CROSS_CACHE, "present.{i}.encoder.value": CROSS_CACHE}
_GIVEN = {
    MASK: Tensor(INT64, ("batch", "sequence")),
    STATES: Tensor(_FLOATS, ("batch", "sequence", "hidden_size")),
    "inputs_embeds": Tensor(_FLOATS, ("batch", "tokens", "hidden_size")),
}
_PAST = {
    "past_key_values.{i}.decoder.key": OWN_CACHE,
    "past_key_values.{i}.decoder.value": OWN_CACHE,
    "past_key_values.{i}.encoder.key": CROSS_CACHE,
    "past_key_values.{i}.encoder.value": CROSS_CACHE,
}

SHARED = (VISION_ENCODER, EMBED_TOKENS)
"""Graphs that this package's own layout has too."""

ENCODERS = {
    VISION_ENCODER: Signature(
        inputs={"pixel_values": Tensor(_FLOATS, ("batch", 3, "height", "width"))},
        outputs={"image_features": Tensor(_FLOATS, ("batch", "image_tokens", "hidden_size"))},
    ),
    EMBED_TOKENS: Signature(
        inputs={"input_ids": Tensor(INT64, ("batch", "tokens"))},
        outputs={"inputs_embeds": Tensor(_FLOATS, ("batch", "tokens", "hidden_size"))},
    ),
    ENCODER: Signature(
        inputs={
            "attention_mask": Tensor(INT64, ("batch", "sequence")),
            "inputs_embeds": Tensor(_FLOATS, ("batch", "sequence", "hidden_size")),
        },
        outputs={"last_hidden_state": Tensor(_FLOATS, ("batch", "sequence", "hidden_size"))},
    ),
}

MERGED = {
    **ENCODERS,
    MERGED_DECODER: Signature(
        inputs={**_GIVEN, **_PAST, SWITCH: Tensor(BOOL, (1,))}, outputs={**_PRESENT, **_CROSS}
    ),
}
"""Graph -> tensors, where one graph decodes the first token and the later tokens."""

SPLIT = {
    **ENCODERS,
    FIRST_DECODER: Signature(inputs=_GIVEN, outputs={**_PRESENT, **_CROSS}),
    LATER_DECODER: Signature(
        # Tensors that follow from the encoder's states are in the past.
        inputs={**_GIVEN, STATES: _GIVEN[STATES]._replace(is_optional=True), **_PAST},
        outputs=_PRESENT,
    ),
}
"""Graph -> tensors, where one graph decodes the first token and another the later tokens."""
