"""Generation through the exported graphs equals transformers' generate.

A share of the cases of ``tests/parity.py``, those of one model; the script runs all of them.
"""

from pathlib import Path

from tests.helpers.onnx_runner import OnnxRunner
from tests.helpers.parity import cases, compare
from tests.helpers.random_models import SMALL


def test_tokens_and_scores_are_those_of_transformers(tmp_path: Path) -> None:
    chosen = [
        case
        for case in cases(600, seed=11, longest=220)
        if case.geometry is SMALL[0] and case.model_seed == 0
    ][:40]
    report = compare(chosen, OnnxRunner(tmp_path))
    print("\n".join(report.lines()))
    assert report.failures == []
    assert report.beams_differ_from_greedy > 10
    assert report.end_early > 5
    assert report.ngram_rule > 5
