"""Folders in the hub's layout against transformers' generate: the same tokens."""

from pathlib import Path
from typing import Any

import pytest

from florence_onnx import Florence2
from tests.export.test_end_to_end import LONGEST, OPTIONS, generated, requests
from tests.helpers.exports import Exported
from tests.helpers.hub_layout import write_hub_layout


@pytest.fixture(scope="module")
def folder(native: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All six graphs, in fp32 and fp16."""
    made = tmp_path_factory.mktemp("hub") / "model"
    for suffix in ("", "_fp16"):
        write_hub_layout(
            native.model, made, native.geometry.image_size, suffix, assets=native.folder
        )
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> Florence2:
    return Florence2.load(folder, threads=1)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_task_gives_the_tokens_of_transformers(
    native: Exported, model: Florence2, options: dict[str, Any]
) -> None:
    assert list(model.graphs.files)[-1] == "decoder_model_merged"
    found = model.run(requests(), max_new_tokens=LONGEST, **options)
    for request, result in zip(requests(), found, strict=True):
        expected = generated(native, model, request, options)
        ours = [result, *result.alternatives]
        assert [answer.token_ids for answer in ours] == [ids for ids, _ in expected], request.task
        for answer, (_, score) in zip(ours, expected, strict=True):
            if score is not None:
                # Sums of 70 float32 log-probabilities.
                assert answer.score == pytest.approx(score, abs=1e-4)
