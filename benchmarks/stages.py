"""Times every stage of a request: ours against transformers, the vision encoder also on OpenVINO.

    python -m benchmarks.stages
    python -m benchmarks.stages --precision fp32 q8 --dtypes fp32 bf16

First the vision encoders take turns, then whole requests: an OD of 411 tokens with 3 beams. A step,
search included, is timed with 16 tokens in the cache and with 400, as the median of the steps near.
The host's share of a step is the share that is not in ONNX Runtime.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import (
    BEAMS,
    Picture,
    Setup,
    fidelity_notes,
    make_parser,
    make_picture,
    publish,
)
from benchmarks.harness.measuring import Samples, alternate, ratio, seconds, summarise
from benchmarks.harness.session_log import SessionLog
from benchmarks.peers.ours import Ours
from benchmarks.peers.ours import open_peer as open_ours
from benchmarks.peers.transformers_eager import Transformers
from benchmarks.peers.transformers_eager import open_peer as open_transformers
from benchmarks.peers.transformers_stages import time_transformers, vision_alone
from benchmarks.peers.vision_engines import (
    Pixels,
    Vision,
    int8_visions,
    openvino_visions,
    provider_visions,
)
from florence_onnx.profiling import time_stages

PASTS = (16, 400)
"""Numbers of tokens in the cache at the reported steps."""

AROUND = 8
"""Number of steps before and after a reported step whose median is reported."""

TOKENS = PASTS[-1] + AROUND + 3
"""Length of the answer in tokens. The last steps of a request are not timed."""

HOST = "host's share of a step at past 16"
FIRST = "first token after the picture is encoded"

Stages = Mapping[str, float]
"""Stage -> seconds of one request."""


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=7)
    parser.add_argument("--dtypes", nargs="*", help="of transformers (default: fp32 and bf16)")
    arguments = parser.parse_args(argv)
    # The other engines run the float32 graph, which a quantised export may be without.
    precisions = ["fp32", *arguments.precision]
    setup = prepare(argparse.Namespace(**{**vars(arguments), "precision": precisions}))
    dtypes = arguments.dtypes
    if dtypes is None:
        dtypes = ["fp32", "bf16" if setup.device == "cpu" else "fp16"]
    ours = [open_ours(precision, setup) for precision in arguments.precision]
    theirs = [open_transformers(dtype, setup) for dtype in dtypes]
    visions, notes = _vision_sides(ours, theirs, setup)
    cases: dict[str, Samples] = {"vision": alternate(visions, arguments.repeats)}
    cases |= _by_stage(alternate(_request_sides(ours, theirs), arguments.repeats))
    shares = cases.pop(HOST)
    content = {
        "settings": {"beams": BEAMS, "tokens": TOKENS, "picture": list(make_picture().shape)},
        **summarise(cases),
        "notes": [*fidelity_notes(setup, arguments.precision), *notes],
    }
    content["ratios"] |= _growth(cases)
    content["ratios"] |= {f"{HOST}: {side}": ratio(s, [1.0] * len(s)) for side, s in shares.items()}
    publish("stages", arguments, argv, content, setup.provider)


def _vision_sides(
    ours: Sequence[Ours], theirs: Sequence[Transformers], setup: Setup
) -> tuple[dict[str, Callable[[], float]], list[str]]:
    """Times all vision encoders on the same pixel values; also returns notes on missing ones."""
    picture = make_picture()
    sides: dict[str, Vision] = {}
    for peer in ours:
        sides[peer.name] = peer.model.graphs.image_features
    notes = []
    on_cpu = (openvino_visions, provider_visions, int8_visions)
    engines = on_cpu if setup.device == "cpu" else ()
    for engine in engines:
        try:
            sides |= engine(setup)
        except ImportError as error:
            notes.append(f"A side of the vision encoder was left out: {error}")
    pixels: Pixels = ours[0].model.assets.preprocessor(picture)[None]
    timed = {name: _timed(vision, pixels) for name, vision in sides.items()}
    timed |= {peer.name: _timed(vision_alone(peer), pixels) for peer in theirs}
    return timed, notes


def _timed(vision: Vision, pixels: Pixels) -> Callable[[], float]:
    return lambda: seconds(lambda: vision(pixels))


def _request_sides(
    ours: Sequence[Ours], theirs: Sequence[Transformers]
) -> dict[str, Callable[[], Stages]]:
    picture = make_picture()
    sides: dict[str, Callable[[], Stages]] = {}
    for our in ours:
        sides[our.name] = _our_request(SessionLog(our.model), picture)
    for their in theirs:
        sides[their.name] = _their_request(their, picture)
    return sides


def _our_request(log: SessionLog, picture: Picture) -> Callable[[], Stages]:
    def request() -> Stages:
        stages = time_stages(
            log.model, picture, tokens=TOKENS, repeats=1, warmup=0, num_beams=BEAMS
        )
        steps = log.take_steps()
        shares = [step.host_share for step in steps]
        return {
            **_reported(stages, [step.seconds for step in steps]),
            HOST: _median_around(shares, PASTS[0]),
        }

    return request


def _their_request(peer: Transformers, picture: Picture) -> Callable[[], Stages]:
    return lambda: _reported(*time_transformers(peer, picture, TOKENS))


def _reported(stages: Stages, steps: Sequence[float]) -> dict[str, float]:
    """Returns the times of one request that are published."""
    return {
        "preprocess": stages["preprocess"],
        "embed and encoder": stages["embed_encoder"],
        "first token": stages["first_token"],
        FIRST: stages["embed_encoder"] + stages["first_token"],
        **{f"step at past {past}": _median_around(steps, past) for past in PASTS},
        "parse": stages["parse"],
    }


def _median_around(steps: Sequence[float], past: int) -> float:
    return statistics.median(steps[past - AROUND : past + AROUND + 1])


def _by_stage(rounds: Mapping[str, Sequence[Stages]]) -> dict[str, Samples]:
    """Turns side -> requests into stage -> side -> samples."""
    stages = dict.fromkeys(stage for requests in rounds.values() for stage in requests[0])
    return {
        stage: {
            side: [request[stage] for request in requests]
            for side, requests in rounds.items()
            if stage in requests[0]
        }
        for stage in stages
    }


def _growth(cases: Mapping[str, Samples]) -> dict[str, Any]:
    """Computes the slowdown of a step by a long cache, per side."""
    short, long = (cases[f"step at past {past}"] for past in PASTS)
    name = f"step at past {PASTS[1]} / step at past {PASTS[0]}"
    return {f"{name}: {side}": ratio(long[side], short[side]) for side in short}


if __name__ == "__main__":
    main(sys.argv[1:])
