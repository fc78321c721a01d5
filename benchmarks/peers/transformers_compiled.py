"""Peer of transformers with torch.compile; a variant is the type of the weights.

The vision tower, the encoder, the decoder and the head are compiled one by one. The decoder
is compiled for a growing cache, so that nothing is compiled again after the first answer.
"""

import torch

from benchmarks.harness.common import Setup
from benchmarks.peers import transformers_eager

VARIANTS = tuple(transformers_eager.DTYPES)


def open_peer(variant: str, setup: Setup) -> transformers_eager.Transformers:
    """Opens the checkpoint; the first answers take minutes."""
    eager = transformers_eager.open_peer(variant, setup)
    # transformers' wrappers are other functions at the first step than at later steps.
    torch._dynamo.config.recompile_limit = 64
    text = eager.model.model.language_model
    for module, dynamic in (
        (eager.model.model.vision_tower, None),
        (text.encoder, None),
        (text.decoder, True),
        (eager.model.lm_head, None),
    ):
        module.forward = torch.compile(module.forward, dynamic=dynamic)
    return transformers_eager.Transformers(f"torch.compile {variant}", eager.model, eager.processor)
