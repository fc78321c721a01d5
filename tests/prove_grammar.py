"""Counts answers that break the grammar of their task, out of many that a model of noise gives.

    python tests/prove_grammar.py
    python tests/prove_grammar.py --answers 1000

Every logit of every step is noise, as of weights at a high temperature: normal, times 1 to 30, over
the demo model's vocabulary. Without constraints next to no answer keeps its grammar. With them all
have to, whatever the beams, the length and the rule against repeated n-grams. Grammars are written
once more in tests/runtime/test_constraints.py, as regular expressions, to judge by.
"""

import argparse
import random
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from florence_onnx.assets.reading import Assets
from florence_onnx.constraining import grammars
from florence_onnx.generation.ranking import best_ids, log_softmax
from florence_onnx.generation.search import search
from florence_onnx.requests import EncodedImage, Prepared
from florence_onnx.resolver import DEMO
from florence_onnx.tasks import AnswerKind, Task
from tests.runtime.test_constraints import WHOLE

BATCH = 8
CAPTION = "A red circle, a blue square and the word STOP."
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class Noise:
    """What a decoder would say of some rows."""

    def __init__(self, logits: Floats) -> None:
        self._logits = logits

    def logits(self) -> Floats:
        """Of every token, float32 [R,V]."""
        return self._logits

    def top(self, k: int) -> tuple[Floats, Ids]:
        """The most probable tokens and their log-probabilities, [R,k]."""
        log_probs = log_softmax(self._logits)
        ids = best_ids(log_probs, k)
        return np.take_along_axis(log_probs, ids, axis=1), ids


def main() -> None:
    """Counts, prints, and exits with 1 if an answer breaks its grammar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=10_000, help="(default: 10000)")
    arguments = parser.parse_args()
    assets, draw = Assets.read(DEMO), random.Random(0)
    tasks = [task for task in Task if task.answer_kind is not AnswerKind.TEXT]
    asked: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    free: Counter[str] = Counter()
    located = 0
    while asked.total() < arguments.answers:
        task, seed = tasks[asked.total() // BATCH % len(tasks)], draw.randrange(1 << 30)
        options: dict[str, Any] = {
            "num_beams": draw.choice([1, 1, 3, 5]),
            "max_new_tokens": draw.randint(2, 60),
            "no_repeat_ngram_size": draw.choice([0, 2, 3]),
        }
        for constrain, counts in ((True, broken), (False, free)):
            for text in answers(assets, task, seed, constrain, options):
                counts[task.name] += not re.fullmatch(WHOLE[task.answer_kind], text)
                located += constrain and "<loc_" in text
        asked[task.name] += BATCH
    for name, count in asked.items():
        print(f"{name}: {broken[name]} of {count} break the grammar; without it {free[name]}")
    print(f"all: {broken.total()} of {asked.total()}; {located} locate something")
    sys.exit(broken.total() > 0 or located < asked.total() // 4)


def answers(
    assets: Assets, task: Task, seed: int, constrain: bool, options: dict[str, Any]
) -> list[str]:
    """The texts of a batch of answers, without special tokens."""
    rng = np.random.default_rng(seed)
    scale, end = rng.uniform(1, 30), rng.uniform(-3, 1)
    policy = replace(assets.policy.replace(**options), constrain=constrain)

    def step(token_ids: Ids, rows: Ids, requests: Ids) -> Noise:
        logits = rng.normal(0, scale, (len(rows), policy.vocab_size)).astype(np.float32)
        logits[:, list(policy.ends)] += np.float32(end * scale)
        return Noise(logits)

    picture = EncodedImage(np.zeros((1, 1), np.float32), (640, 480))
    batch = [Prepared(picture, task, task.answer_kind, (), CAPTION)] * BATCH
    found = search(step, BATCH, policy, (), grammars(assets.tokenizer, batch, policy))
    texts = [assets.tokenizer.decode(best[0].token_ids) for best in found]
    return [re.sub("<s>|</s>|<pad>", "", text) for text in texts]


if __name__ == "__main__":
    main()
