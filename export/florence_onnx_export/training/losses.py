"""Losses of the decoder: next tokens, where bins near the right bin count as nearly right."""

import torch
from torch.nn import functional

from florence_onnx.locations import BINS


def token_loss(
    logits: torch.Tensor, targets: torch.Tensor, first_location: int, sigma: float
) -> torch.Tensor:
    """Mean loss per token.

    Text tokens have the cross-entropy. Location tokens have the Kullback-Leibler divergence from a
    Gaussian over the bins around the right bin. With one-hot targets over 1,000 bins a near miss
    costs as much as a far miss, and a model from scratch learns no localisation.

    Args:
        logits: float [tokens, vocabulary].
        targets: int64 [tokens].
        first_location: Id of ``<loc_0>``.
        sigma: Standard deviation of the Gaussian in bins; 0 for plain cross-entropy.
    """
    bins = targets - first_location
    is_location = (bins >= 0) & (bins < BINS) & (sigma > 0)
    text = functional.cross_entropy(logits[~is_location], targets[~is_location], reduction="sum")
    if not is_location.any():
        return text / len(targets)
    log_p = logits[is_location].log_softmax(dim=-1)[:, first_location : first_location + BINS]
    return (text + location_loss(log_p, bins[is_location], sigma)) / len(targets)


def location_loss(log_p: torch.Tensor, bins: torch.Tensor, sigma: float) -> torch.Tensor:
    """Summed divergence from a Gaussian around each right bin.

    Args:
        log_p: Log-probabilities, float [places, 1000].
        bins: int64 [places].
        sigma: Standard deviation of the Gaussian in bins, above 0.
    """
    distance = torch.arange(BINS, device=log_p.device) - bins[:, None]
    wanted = (-0.5 * (distance / sigma) ** 2).softmax(dim=-1)
    return functional.kl_div(log_p, wanted, reduction="sum")
