"""Times whole requests, from a decoded picture to the parsed answer: ours against the peers.

python -m benchmarks.compare
python -m benchmarks.compare --precision fp32 q8 --peers transformers_eager:fp32 openvino:bf16
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import (
    BEAMS,
    BenchmarkError,
    fidelity_notes,
    make_parser,
    make_picture,
    publish,
)
from benchmarks.harness.measuring import (
    agreement,
    alternate,
    require_same_tokens,
    seconds,
    summarise,
)
from benchmarks.peers import PEERS_HELP, Answer, Peer, open_peers

CASES = {"CAPTION of 20 tokens": ("<CAPTION>", 20), "OD of 200 tokens": ("<OD>", 200)}
"""Request: task and length of the answer."""

PEERS = {
    "cpu": [
        "transformers_eager:fp32",
        "transformers_eager:bf16",
        "transformers_compiled:bf16",
        "openvino:f32",
        "openvino:bf16",
    ],
    "cuda": ["transformers_eager:fp32", "transformers_eager:fp16", "transformers_compiled:fp16"],
}

EQUAL = ("ours fp32", "transformers fp32")
"""Sides that must generate the same tokens. All other sides compute in fewer bits."""


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=7)
    parser.add_argument("--peers", nargs="+", metavar="PEER", help=PEERS_HELP)
    arguments = parser.parse_args(argv)
    setup = prepare(arguments)
    ours = [f"ours:{precision}" for precision in arguments.precision]
    peers, notes = open_peers([*ours, *(arguments.peers or PEERS[setup.device])], setup)
    cases, tokens = {}, {}
    for case, (task, length) in CASES.items():
        answers = {peer.name: _answer(peer, task, length) for peer in peers}
        tokens[case] = check_tokens(case, answers, length)
        sides = {peer.name: partial(_time, peer, task, length) for peer in peers}
        cases[case] = alternate(sides, arguments.repeats)
    content = {
        "settings": {"beams": BEAMS, "picture": list(make_picture().shape)},
        **summarise(cases),
        "equal_tokens": tokens,
        "notes": [*fidelity_notes(setup, arguments.precision), *notes],
    }
    publish("compare", arguments, argv, content, setup.provider)


def check_tokens(case: str, answers: dict[str, Answer], length: int) -> dict[str, Any]:
    """Checks lengths, and that sides of full precision generate the same tokens.

    Args:
        case: Name of the case, for the message.
        answers: Side -> answer of the side.
        length: Number of tokens to generate.

    Returns:
        For each side, the share of tokens before the first token that differs from transformers'
        fp32; nothing where transformers was left out.

    Raises:
        BenchmarkError: An answer has another length, or tokens that must be equal differ.
    """
    for name, answer in answers.items():
        if len(answer.token_ids) != length + 1:
            raise BenchmarkError(
                f"{case}: {name} generated {len(answer.token_ids) - 1} tokens, not {length}"
            )
    exact = [answers[name].token_ids for name in EQUAL if name in answers]
    require_same_tokens(case, exact[:1], exact[-1:])
    if EQUAL[1] not in answers:
        return {}
    reference = answers[EQUAL[1]].token_ids
    return {name: agreement(answer.token_ids, reference) for name, answer in answers.items()}


def _answer(peer: Peer, task: str, tokens: int) -> Answer:
    return peer.answer([make_picture()], task, tokens, BEAMS)[0]


def _time(peer: Peer, task: str, tokens: int) -> float:
    picture = make_picture()
    return seconds(lambda: peer.answer([picture], task, tokens, BEAMS))


if __name__ == "__main__":
    main(sys.argv[1:])
