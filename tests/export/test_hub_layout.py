"""Folders in the hub's layout against transformers' generate: the same tokens."""

import json
from pathlib import Path
from typing import Any

import pytest

from florence_onnx import Florence2
from florence_onnx.assets.writing import write_assets
from florence_onnx.checkpoints.config import ModelConfig
from tests.export.test_end_to_end import LONGEST, OPTIONS, generated, requests
from tests.helpers.checkpoints import save_native
from tests.helpers.exports import SEED, SQUARE, Exported
from tests.helpers.hub_layout import write_hub_layout
from tests.helpers.random_models import make_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """All six graphs, in fp32 and fp16; not to be changed."""
    place = tmp_path_factory.mktemp("hub")
    model, checkpoint, folder = make_model(SQUARE, SEED), place / "checkpoint", place / "model"
    save_native(model, checkpoint, image_size=SQUARE.image_size)
    for suffix in ("", "_fp16"):
        write_hub_layout(model, folder, SQUARE.image_size, suffix)
    config = json.loads((checkpoint / "config.json").read_text())
    write_assets(checkpoint, ModelConfig.from_dict(config), config, folder)
    return Exported(model, SQUARE, checkpoint, folder, {}, [])


def without(exported: Exported, folder: Path, *graphs: str) -> Path:
    """A folder of links to the files of the model, but for some graphs."""
    (folder / "onnx").mkdir(parents=True)
    for path in exported.folder.rglob("*"):
        if path.is_file() and path.stem not in graphs:
            (folder / path.relative_to(exported.folder)).symlink_to(path)
    return folder


@pytest.fixture(scope="module", params=["merged", "split"])
def model(
    exported: Exported, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Florence2:
    absent = "decoder_model_merged" if request.param == "split" else ""
    return Florence2.load(without(exported, tmp_path_factory.mktemp("o") / "m", absent), threads=1)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_task_gives_the_tokens_of_transformers(
    exported: Exported, model: Florence2, options: dict[str, Any]
) -> None:
    found = model.run(requests(), max_new_tokens=LONGEST, **options)
    for request, result in zip(requests(), found, strict=True):
        expected = generated(exported, model, request, options)
        ours = [result, *result.alternatives]
        assert [answer.token_ids for answer in ours] == [ids for ids, _ in expected], request.task
        for answer, (_, score) in zip(ours, expected, strict=True):
            if score is not None:
                # Sums of 70 float32 log-probabilities.
                assert answer.score == pytest.approx(score, abs=1e-4)


def tokens(model: Florence2, batch_size: int = 8) -> list[tuple[int, ...]]:
    found = model.run(requests(), max_new_tokens=LONGEST, batch_size=batch_size)
    return [result.token_ids for result in found]


def test_one_by_one_and_encoded_once(model: Florence2) -> None:
    """Rows of a request alone share the cache of the cross-attention."""
    assert model.graphs.decoder.shares  # type: ignore[attr-defined]
    expected = tokens(model)
    assert tokens(model, batch_size=1) == expected
    first = requests()[0]
    encoded = model.encode(first.image)  # type: ignore[arg-type]
    assert model(encoded, first.task, max_new_tokens=LONGEST).token_ids == expected[0]


def test_a_graph_that_does_not_share(model: Florence2, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tokens(model, batch_size=1)
    monkeypatch.setitem(vars(model.graphs.decoder), "shares", False)
    assert tokens(model, batch_size=1) == expected


def test_float16_tensors(exported: Exported) -> None:
    """Random weights have no sure answers, so near ones count: most tokens are the same."""
    model = Florence2.load(exported.folder, threads=1)
    half = Florence2.load(exported.folder, precision="fp16", threads=1)
    assert half.graphs.sessions["decoder_model_merged"].get_inputs()[1].type == "tensor(float16)"
    same = [a == b for a, b in zip(tokens(model), tokens(half), strict=True)]
    assert sum(same) > len(same) / 2


@pytest.mark.parametrize("absent", ["", "decoder_model_merged"])
def test_a_precision_per_graph(exported: Exported, tmp_path: Path, absent: str) -> None:
    precision = {"vision_encoder": "fp16", "decoder_with_past_model": "fp16", "*": "fp32"}
    model = Florence2.load(
        without(exported, tmp_path / "m", absent), precision=precision, threads=1
    )
    assert model.precision == "fp16+fp32"
    assert model.graphs.files["vision_encoder"] == "onnx/vision_encoder_fp16.onnx"
    assert model.graphs.files["embed_tokens"] == "onnx/embed_tokens.onnx"
    assert len(set(tokens(model))) > 3
