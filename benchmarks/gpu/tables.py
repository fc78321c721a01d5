"""Times of one geometry on a provider, within a budget of seconds."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import cast

from benchmarks.compare import CASES
from benchmarks.gpu.budget import Budget
from benchmarks.harness.common import BEAMS, Setup, make_picture, progress
from benchmarks.harness.measuring import Samples, alternate, seconds
from benchmarks.peers import Peer, open_peers
from benchmarks.peers.ours import Ours
from benchmarks.peers.transformers_eager import Transformers
from benchmarks.peers.transformers_stages import time_transformers, vision_alone
from florence_onnx.profiling import time_stages

STAGE_TOKENS = 64
BATCHES = (1, 8, 32)
OURS = ("ours:fp32", "ours:fp16")
THEIRS = ("transformers_eager:fp16-eager", "transformers_eager:fp16")
COMPILED = "transformers_compiled:fp16"
"""Peer that is opened last, because compiling takes minutes."""


Cases = dict[str, Samples]


def measure(
    setup: Setup, names: Sequence[str], repeats: int, budget: Budget
) -> Iterator[tuple[Cases, list[str]]]:
    """Times the cases within the budget, the shortest first.

    A case is begun if the budget has four times the seconds of the case before. The first case does
    not count: it waits for cuDNN, which searches the fastest convolutions.

    Args:
        setup: The model.
        names: The peers.
        repeats: Counted rounds.
        budget: Budget of the whole run.

    Yields:
        All measurements so far, and notes on cases that were left out.
    """
    peers, notes = open_peers(names, setup)
    cases: Cases = {}
    lasted = 0.0
    for number, (case, sides) in enumerate(_cases(peers).items()):
        if budget.left() < 4 * lasted:
            notes.append(f"{case} was left out: {max(0, budget.left()):.0f} s were left.")
            continue
        progress(f"{case}, {budget.left():.0f} s left")
        took = seconds(partial(_add, cases, partial(sides, case, repeats)))
        lasted = took if number else 0.0
        yield cases, notes
    yield cases, notes


def _add(cases: Cases, measure: Callable[[], Cases]) -> None:
    cases.update(measure())


def _cases(peers: Sequence[Peer]) -> Mapping[str, Callable[[str, int], Cases]]:
    """Case -> function that measures the case."""

    def stages(case: str, repeats: int) -> Cases:
        rounds = alternate({peer.name: _stages_of(peer) for peer in peers}, repeats)
        names = next(iter(rounds.values()))[0]
        return {n: {side: [r[n] for r in all_] for side, all_ in rounds.items()} for n in names}

    def whole(task: str, tokens: int, count: int) -> Callable[[str, int], Cases]:
        pictures = [make_picture(seed=seed) for seed in range(count)]

        def timed(peer: Peer) -> Callable[[], float]:
            return lambda: seconds(lambda: peer.answer(pictures, task, tokens, BEAMS))

        return lambda case, repeats: {
            case: alternate({peer.name: timed(peer) for peer in peers}, repeats)
        }

    named: dict[str, Callable[[str, int], Cases]] = {"stages": stages}
    for case, (task, tokens) in CASES.items():
        for count in BATCHES:
            of = "1 picture" if count == 1 else f"{count} pictures"
            named[f"{case}, {of}"] = whole(task, tokens, count)
    return named


def _stages_of(peer: Peer) -> Callable[[], dict[str, float]]:
    """Times the vision encoder, the first token, and a step of three beams."""
    if isinstance(peer, Ours):
        return lambda: _our_stages(peer)
    return _their_stages(cast(Transformers, peer))


def _our_stages(peer: Ours) -> dict[str, float]:
    times = time_stages(
        peer.model, make_picture(), tokens=STAGE_TOKENS, repeats=1, warmup=0, num_beams=BEAMS
    )
    return _named(times, times["vision"], times["per_token"])


def _their_stages(peer: Transformers) -> Callable[[], dict[str, float]]:
    picture = make_picture()
    pixels = peer.inputs([picture], "<OD>")["pixel_values"].float().cpu().numpy()
    vision = vision_alone(peer)

    def stages() -> dict[str, float]:
        alone = seconds(lambda: vision(pixels))
        times, steps = time_transformers(peer, picture, STAGE_TOKENS)
        return _named(times, alone, statistics.median(steps[1:]))

    return stages


def _named(times: Mapping[str, float], vision: float, step: float) -> dict[str, float]:
    first = times["embed_encoder"] + times["first_token"]
    return {"vision": vision, "first token after the picture is encoded": first, "a step": step}
