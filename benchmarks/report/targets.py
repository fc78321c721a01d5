"""Targets of the package: ratios on two cores of a CPU, accuracy of the demo model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Target: a limit for a measured ratio."""

    what: str
    """Measured quantity, in words."""
    against: str
    """Quantity to compare with, in words."""
    limit: float
    """Largest ratio that meets the target."""
    benchmark: str
    """Script that measures the ratio."""
    ratio: str
    """Name of the ratio in the script's results; ``*`` is the best of our precisions."""


_FIRST = "first token after the picture is encoded"
_COLD = "process start to a CAPTION of 20 tokens"
_MEMORY = "peak memory of that process"
_ENGINES = {
    "transformers bf16": "PyTorch eager bf16",
    "torch.compile bf16": "PyTorch torch.compile bf16",
    "openvino bf16": "OpenVINO bf16, plainly traced graphs, our search",
}

_VISION = (
    Target(
        "vision encoder, fp32",
        "OpenVINO f32 on the same graph",
        1.10,
        "stages",
        "vision: ours fp32 / openvino f32 on our graph",
    ),
    Target(
        "vision encoder, fp32",
        "PyTorch eager fp32",
        0.60,
        "stages",
        "vision: ours fp32 / transformers fp32",
    ),
    Target(
        "vision encoder, 8-bit",
        "PyTorch eager bf16",
        0.70,
        "stages",
        "vision: ours q8 / transformers bf16",
    ),
    Target(
        "vision encoder, 8-bit",
        "OpenVINO bf16",
        1.20,
        "stages",
        "vision: ours q8 / openvino bf16 on our graph",
    ),
    Target(
        "vision encoder, 8-bit",
        "OpenVINO int8 (NNCF), the rest in bf16, plainly traced graph",
        0.90,
        "stages",
        "vision: ours q8 / openvino int8 bf16",
    ),
    Target(
        "vision encoder through the OpenVINO provider, bf16",
        "OpenVINO bf16",
        1.05,
        "stages",
        "vision: ours fp32 through the OpenVINO provider bf16 / openvino bf16 on our graph",
    ),
)

_DECODER = (
    Target(
        "first token after the picture is encoded, fp32",
        "PyTorch eager fp32",
        0.60,
        "stages",
        f"{_FIRST}: ours fp32 / transformers fp32",
    ),
    Target(
        "decoder step, 3 beams, past 16, fp32",
        "PyTorch generate fp32",
        0.62,
        "stages",
        "step at past 16: ours fp32 / transformers fp32",
    ),
    Target(
        "decoder step, 3 beams, past 16, 8-bit",
        "PyTorch generate bf16",
        0.30,
        "stages",
        "step at past 16: ours q8 / transformers bf16",
    ),
    *(
        Target(
            f"step at past 400, {precision}",
            "step at past 16",
            1.15,
            "stages",
            f"step at past 400 / step at past 16: ours {precision}",
        )
        for precision in ("fp32", "q8")
    ),
    *(
        Target(
            f"numpy and Python per step, search included, {precision}",
            "the whole step",
            0.12,
            "stages",
            f"host's share of a step at past 16: ours {precision}",
        )
        for precision in ("fp32", "q8")
    ),
)

_REQUESTS = (
    *(
        Target(f"{case}, best precision", words, 1.0, "compare", f"{case}: ours * / {engine}")
        for case in ("CAPTION of 20 tokens", "OD of 200 tokens")
        for engine, words in _ENGINES.items()
    ),
    *(
        Target(
            f"{case}, best precision",
            "OpenVINO int8 (NNCF), the rest in bf16, plainly traced graphs, our search",
            limit,
            "compare",
            f"{case}: ours * / openvino int8 bf16",
        )
        for case, limit in (("CAPTION of 20 tokens", 0.75), ("OD of 200 tokens", 0.60))
    ),
    *(
        Target(
            f"8 pictures in a batch, OD of 200 tokens, per picture, {precision}",
            "one picture at a time",
            limit,
            "batching",
            f"8 pictures, OD of 200 tokens: in one batch / one at a time, ours {precision}",
        )
        for precision, limit in (("fp32", 0.70), ("q8", 0.66))
    ),
    *(
        Target(
            f"five tasks on one picture, encoded once and decoded together, {precision}",
            "five separate calls",
            0.45,
            "batching",
            f"5 tasks on one picture: encoded once / separate calls, ours {precision}",
        )
        for precision in ("fp32", "q8")
    ),
)

_PROCESS = (
    Target(
        "process start to a caption of 20 tokens, fp32",
        "transformers fp32",
        0.45,
        "cold_start",
        f"{_COLD}: ours fp32 / transformers fp32",
    ),
    Target(
        "process start to a caption of 20 tokens, best precision",
        "transformers fp32",
        0.25,
        "cold_start",
        f"{_COLD}: ours * / transformers fp32",
    ),
    Target(
        "peak memory of that process, fp32",
        "transformers fp32",
        0.85,
        "cold_start",
        f"{_MEMORY}: ours fp32 / transformers fp32",
    ),
    Target(
        "peak memory of that process, 8-bit",
        "transformers fp32",
        0.35,
        "cold_start",
        f"{_MEMORY}: ours q8 / transformers fp32",
    ),
    Target(
        "installed size of the runtime with its dependencies",
        "torch (CPU) and transformers",
        0.18,
        "size",
        "installed: ours / torch and transformers",
    ),
)

_FOLDERS = (
    Target(
        "annotating a folder, 8-bit",
        "vision encoder and decoder alone, same batches",
        1.10,
        "annotating",
        "CAPTION and OD of every picture, ours q8: annotate / engine alone",
    ),
    Target(
        "annotating a folder of 200 pictures, 8-bit",
        "vision encoder and decoder inside the annotation",
        1.10,
        "annotating",
        "CAPTION and OD of every picture, ours q8: annotate / engine within",
    ),
)

_RULES = tuple(
    Target(
        f"step of the search with {rule}, fp32",
        "step without",
        1.05,
        "constraints",
        f"fp32, a step of 24 rows: {side} / free",
    )
    for rule, side in (("the grammar of OD", "grammar"), ("80 labels", "80 labels"))
)

_WRAPPER = "transformers bf16 in FastAPI"

_SERVICE = (
    Target(
        "service with 8 clients, 8-bit, seconds per request",
        "FastAPI around transformers bf16",
        0.40,
        "serving",
        f"8 clients, seconds per request: ours q8 / {_WRAPPER}",
    ),
    Target(
        "service with 8 clients, 8-bit, 95 of 100 answers",
        "median of FastAPI around transformers bf16",
        1.0,
        "serving",
        f"8 clients, time to an answer, 95 of 100: ours q8 / median time to an answer, {_WRAPPER}",
    ),
)

_HUB = (
    Target(
        "a token in the hub's layout, fp32, greedy",
        "transformers.js, greedy",
        0.85,
        "transformers_js",
        "token: ours greedy / transformers.js greedy",
    ),
    Target(
        "a token in the hub's layout, fp32, 3 beams",
        "transformers.js, greedy",
        1.70,
        "transformers_js",
        "token: ours 3 beams / transformers.js greedy",
    ),
    *(
        Target(
            f"an answer of {tokens} tokens, greedy, 8-bit",
            "transformers.js, greedy, 8-bit graphs made as on the hub",
            limit,
            "captions",
            f"answer of {tokens} tokens: ours q8 / transformers.js q8",
        )
        for tokens, limit in ((21, 0.35), (101, 0.42))
    ),
)

TARGETS = (*_VISION, *_DECODER, *_REQUESTS, *_PROCESS, *_RULES, *_FOLDERS, *_SERVICE, *_HUB)

ACCURACY = {
    "OD mAP@0.5": "≥ 90",
    "OD mAP@[.5:.95]": "≥ 60",
    "CAPTION exact": "≥ 90",
    "CAPTION_TO_PHRASE_GROUNDING recall@0.5": "≥ 90",
    "OPEN_VOCABULARY_DETECTION recall@0.5": "≥ 90",
    "REFERRING_EXPRESSION_SEGMENTATION mean IoU": "≥ 75",
    "REGION_TO_SEGMENTATION mean IoU": "≥ 75",
    "REGION_TO_CATEGORY exact": "≥ 95",
    "REGION_TO_DESCRIPTION exact": "≥ 90",
    "OCR character error": "≤ 10",
    "OCR_WITH_REGION recall@0.5 of boxes": "≥ 80",
}
"""Targets of the demo model on held-out scenes, in percent, by measure."""
