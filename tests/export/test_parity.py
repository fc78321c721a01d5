"""Generation through the exported graphs equals transformers' generate.

A share of the cases of ``tests/parity.py``, those of one model; the script runs all of them.
"""

import dataclasses

import pytest

from tests.helpers.exports import SEED, SQUARE, Exported
from tests.helpers.onnx_runner import OnnxRunner
from tests.helpers.parity import Case, cases, compare, with_settings
from tests.helpers.random_models import SMALL


@pytest.fixture(scope="module")
def runner(native: Exported, tmp_path_factory: pytest.TempPathFactory) -> OnnxRunner:
    """Finds the export that the tests share where it would put its own."""
    folder = tmp_path_factory.mktemp("parity")
    (folder / f"{SQUARE.name}-{SEED}").symlink_to(native.folder)
    return OnnxRunner(folder)


def of_one_model(count: int, seed: int, longest: int) -> list[Case]:
    return [
        dataclasses.replace(case, geometry=SQUARE, model_seed=SEED)
        for case in cases(15 * count, seed=seed, longest=longest)
        if case.geometry is SMALL[0] and case.model_seed == 0
    ][:count]


def test_tokens_and_scores_are_those_of_transformers(runner: OnnxRunner) -> None:
    report = compare(of_one_model(40, seed=11, longest=220), runner)
    print("\n".join(report.lines()))
    assert report.failures == []
    assert report.beams_differ_from_greedy > 10
    assert report.end_early > 5
    assert report.ngram_rule > 5


def test_seldom_settings(runner: OnnxRunner) -> None:
    report = compare(with_settings(of_one_model(25, seed=12, longest=40), seed=12), runner)
    print("\n".join(report.lines()))
    assert report.failures == []
    assert sum(report.settings.values()) > 20


@pytest.mark.parametrize("beams", [65, 110, 129, 200])
def test_more_beams_than_a_block_of_the_cache(runner: OnnxRunner, beams: int) -> None:
    options = {"num_beams": beams, "num_return_sequences": beams, "max_new_tokens": 9}
    case = of_one_model(1, seed=11, longest=220)[0].with_options(**options, min_new_tokens=0)
    report = compare([case], runner)
    assert report.failures == []
    assert len(report.excused) <= 1
