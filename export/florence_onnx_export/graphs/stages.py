"""Stages of transformers' model, with the inputs and outputs that the hub's graphs have."""

from typing import Any

from torch import Tensor


def image_features(model: Any, pixel_values: Tensor) -> Tensor:
    """Image features [B,N,D] of pixel values [B,3,H,W], in any version of transformers."""
    features = model.get_image_features(pixel_values)
    # Transformers 4 returns the tensor itself.
    return features if isinstance(features, Tensor) else features.pooler_output


def see(model: Any, pixel_values: Tensor) -> dict[str, Any]:
    """See `image_features`."""
    return {"image_features": image_features(model, pixel_values)}


def embed(model: Any, input_ids: Tensor) -> dict[str, Any]:
    """Embeddings [B,T,D] of ids [B,T]."""
    return {"inputs_embeds": model.get_input_embeddings()(input_ids)}


def encode(model: Any, attention_mask: Tensor, inputs_embeds: Tensor) -> dict[str, Any]:
    """States [B,S,D] of the text encoder from embeddings [B,S,D]."""
    encoder = model.model.language_model.encoder
    hidden = encoder(attention_mask=attention_mask, inputs_embeds=inputs_embeds)
    return {"last_hidden_state": hidden.last_hidden_state}


def decode(
    model: Any,
    encoder_attention_mask: Tensor,
    encoder_hidden_states: Tensor,
    inputs_embeds: Tensor,
    past_key_values: Any = None,
) -> dict[str, Any]:
    """Logits [B,T,V] and cache from embeddings [B,T,D], at the first step or a later one."""
    # Later versions of transformers warn of this name, even where None is given.
    past = {} if past_key_values is None else {"past_key_values": past_key_values}
    found = model.model.language_model.decoder(
        inputs_embeds=inputs_embeds,
        encoder_attention_mask=encoder_attention_mask,
        encoder_hidden_states=encoder_hidden_states,
        use_cache=True,
        **past,
    )
    logits = model.lm_head(found.last_hidden_state)
    return {"logits": logits, "past_key_values": found.past_key_values}
