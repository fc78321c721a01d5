"""Counts answers that break the grammar of their task, out of many that random models give.

    python tests/prove_grammar.py
    python tests/prove_grammar.py --answers 1000

Half of the answers come from noise: every logit of every step is normal, times 1 to 30, over the
demo model's vocabulary. The other half come from decoders with random weights (in PyTorch), whose
matrices are multiplied by 1 to 6, as if at a high temperature. Without constraints next to no
answer keeps its grammar. With them all have to, whatever the beams, the length and the rule against
repeated n-grams. Grammars are written once more in tests/runtime/test_constraints.py, as regular
expressions, to judge by.
"""

import argparse
import functools
import random
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import Florence2ForConditionalGeneration

sys.path.insert(0, str(Path(__file__).parents[1]))

from florence_onnx.assets.reading import Assets
from florence_onnx.constraining import grammars
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.ranking import best_ids, log_softmax
from florence_onnx.generation.search import Step, search
from florence_onnx.requests import EncodedImage, Prepared
from florence_onnx.resolver import DEMO
from florence_onnx.tasks import AnswerKind, Task
from tests.helpers.parity import Case
from tests.helpers.random_models import SMALL, make_model
from tests.helpers.tiny import TINY
from tests.helpers.tokenizers import VOCABULARY
from tests.helpers.torch_steps import TorchSteps
from tests.runtime.test_constraints import WHOLE

BATCH = 8
CAPTION = "A red circle, a blue square and the word STOP."
GEOMETRY = replace(SMALL[0], vocab_size=VOCABULARY, image_token_id=VOCABULARY - 1)
"""The geometry of tests/fixtures/tiny, whose tokenizer these models have."""
GAINS = (1.0, 1.5, 2.5, 4.0, 6.0)
SEEDS = 4
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=10_000, help="(default: 10000)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(0)
    sources = [(Assets.read(DEMO), noise), (Assets.read(TINY), decoder)]
    tasks = [task for task in Task if task.answer_kind is not AnswerKind.TEXT]
    asked: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    free: Counter[str] = Counter()
    located = 0
    while asked.total() < arguments.answers:
        turn = asked.total() // BATCH
        assets, source = sources[turn % 2]
        task, seed = tasks[turn // 2 % len(tasks)], draw.randrange(1 << 30)
        options: dict[str, Any] = {
            "num_beams": draw.choice([1, 1, 3, 5]),
            "max_new_tokens": draw.randint(2, 60),
            "no_repeat_ngram_size": draw.choice([0, 2, 3]),
        }
        name = f"{task.name}, {source.__name__}"
        for constrain, counts in ((True, broken), (False, free)):
            policy = assets.policy.replace(**options, constrain=constrain)
            for text in answers(assets, task, policy, source(seed, policy)):
                counts[name] += not re.fullmatch(WHOLE[task.answer_kind], text)
                located += constrain and "<loc_" in text
        asked[name] += BATCH
    for name, count in sorted(asked.items()):
        print(f"{name}: {broken[name]} of {count} break the grammar; without it {free[name]}")
    print(f"all: {broken.total()} of {asked.total()}; {located} locate something")
    sys.exit(broken.total() > 0 or located < asked.total() // 4)


def noise(seed: int, policy: GenerationPolicy) -> Step:
    """A decoder whose logits are noise."""
    rng = np.random.default_rng(seed)
    scale, end = rng.uniform(1, 30), rng.uniform(-3, 1)

    def step(token_ids: Ids, rows: Ids, requests: Ids) -> Noise:
        logits = rng.standard_normal((len(rows), policy.vocab_size), dtype=np.float32)
        logits *= np.float32(scale)
        logits[:, list(policy.ends)] += np.float32(end * scale)
        return Noise(logits)

    return step


def decoder(seed: int, policy: GenerationPolicy) -> Step:
    """A decoder with random weights, about random pictures and prompts."""
    model = amplified(seed % SEEDS, GAINS[seed // SEEDS % len(GAINS)])
    case = Case(seed, GEOMETRY, 0, (5,) * BATCH, {})
    with torch.inference_mode():
        steps = TorchSteps(model, case.inputs())

    def step(token_ids: Ids, rows: Ids, requests: Ids) -> Any:
        with torch.inference_mode():
            return steps(token_ids, rows, requests)

    return step


@functools.cache
def amplified(seed: int, gain: float) -> Florence2ForConditionalGeneration:
    """A model with random weights, whose language model has ``gain`` times the usual matrices."""
    model = make_model(GEOMETRY, seed)
    with torch.no_grad():
        for parameter in model.model.language_model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(gain)
    return model


def answers(assets: Assets, task: Task, policy: GenerationPolicy, step: Step) -> list[str]:
    """The texts of a batch of answers, without special tokens."""
    picture = EncodedImage(np.zeros((1, 1), np.float32), (640, 480))
    batch = [Prepared(picture, task, task.answer_kind, (), CAPTION)] * BATCH
    found = search(step, BATCH, policy, (), grammars(assets.tokenizer, batch, policy))
    texts = [assets.tokenizer.decode(best[0].token_ids) for best in found]
    return [re.sub("<s>|</s>|<pad>", "", text) for text in texts]


if __name__ == "__main__":
    main()
