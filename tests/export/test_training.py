"""The training recipe: its parts, and short runs that have to learn something."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import Florence2ForConditionalGeneration

from florence_onnx import Florence2
from florence_onnx.cli.program import main
from florence_onnx.errors import InputError, TaskError
from florence_onnx.tasks import Task
from florence_onnx_export import exporter
from florence_onnx_export.demo import make_demo
from florence_onnx_export.exporter import export
from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.scene import sample_scene
from florence_onnx_export.training import runs
from florence_onnx_export.training.batches import expand_prompt
from florence_onnx_export.training.cache import squashed
from florence_onnx_export.training.config import Optimisation, Recipe, Scratch, Stage, load_recipe
from florence_onnx_export.training.dense import dense_targets
from florence_onnx_export.training.evaluation import model_inputs
from florence_onnx_export.training.loop import decay_progress, learning_rate, train
from florence_onnx_export.training.losses import token_loss
from florence_onnx_export.training.network import smooth_code
from florence_onnx_export.training.runs import fine_tune, scene_tokenizer, train_from_scratch
from tests.helpers.exports import copied_graphs
from tests.helpers.kills import modes, usual_mode

MADE = ("demo", "plain")
RECIPE = Path(__file__).parents[2] / "export/florence_onnx_export/training/demo.json"

_TASKS = {"<OD>": 2.0, "<CAPTION>": 1.0, "<REGION_TO_CATEGORY>": 1.0, "<OCR>": 1.0}
TINY = Recipe(
    Optimisation(
        seed=3,
        steps=60,
        learning_rate=2e-3,
        warmup_steps=5,
        hold_steps=40,
        location_sigma=(20.0, 10.0),
        save_every=1000,
    ),
    Scratch(
        image_size=64,
        text_tokens=450,
        vision={
            "embed_dim": [16, 32, 32, 64],
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 2, 4],
            "num_groups": [1, 2, 2, 4],
            "patch_stride": [4, 2, 2, 1],
            "window_size": 4,
            "drop_path_rate": 0.0,
            "max_position_embeddings": 4,
            "max_temporal_embeddings": 4,
        },
        text={
            "d_model": 64,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "max_position_embeddings": 256,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
        },
        pictures=40,
        dense_weight=0.5,
        evaluated_scenes=0,
        stages=(
            Stage(0, 8, 2, 3, {**_TASKS, "<OCR>": 0.5}),
            Stage(40, 8, 6, 3, _TASKS),
        ),
    ),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A run from scratch, and its losses."""
    out = tmp_path_factory.mktemp("scratch")
    return out, train_from_scratch(TINY, out)


def test_a_short_run_lowers_its_loss(trained: tuple[Path, list[float]]) -> None:
    _, losses = trained
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


def test_a_run_leaves_a_complete_folder(trained: tuple[Path, list[float]]) -> None:
    folder = trained[0] / "model"
    config = json.loads((folder / "config.json").read_text())
    policy = json.loads((folder / "generation_config.json").read_text())
    size = json.loads((folder / "preprocessor_config.json").read_text())["size"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert (folder / "model.safetensors").is_file()
    assert size == {"height": 64, "width": 64}
    assert policy["num_beams"] == 3 and policy["decoder_start_token_id"] == 2
    assert config["text_config"]["vocab_size"] > tokenizer.token_to_id("<image>")


def test_files_of_a_run_take_the_umask(trained: tuple[Path, list[float]], tmp_path: Path) -> None:
    assert modes(trained[0]) == {usual_mode(tmp_path)}
    names = {path.name for path in trained[0].iterdir()}
    assert names == {"state.pt", "log.jsonl", "pictures-64.npy", "model"}


def test_a_run_goes_through_export(
    trained: tuple[Path, list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the demo model does: weights stored in float16 give the very outputs of float32."""
    checkpoint = trained[0] / "model"
    export(checkpoint, tmp_path / "plain")
    monkeypatch.setattr(exporter, "trace", copied_graphs(tmp_path / "plain"))
    make_demo(checkpoint, tmp_path / "demo")
    sizes = [sum(p.stat().st_size for p in (tmp_path / n / "onnx").iterdir()) for n in MADE]
    assert sizes[0] < 0.7 * sizes[1]
    models = [Florence2.load(tmp_path / name, threads=1) for name in MADE]
    network = Florence2ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    for seed in range(3):
        picture = np.asarray(draw(sample_scene(seed, "held-out")))
        features = [model.encode(picture).image_features for model in models]
        np.testing.assert_array_equal(features[0], features[1])
        answers = [model(picture, "od", max_new_tokens=20) for model in models]
        assert answers[0] == answers[1]
        pixels = squashed(Image.fromarray(picture), 64)[None].copy()
        inputs = model_inputs(network, tokenizer, pixels, [Task.OD.prompt])
        expected = network.generate(**inputs, num_beams=3, max_new_tokens=20)
        assert list(answers[0].token_ids) == expected[0].tolist()


def test_a_run_stopped_halfway_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    short = replace(TINY, optimisation=replace(TINY.optimisation, steps=6, save_every=3))
    straight = train_from_scratch(short, tmp_path / "straight")
    half = replace(short, optimisation=replace(short.optimisation, steps=3))
    # The schedule of a run of three steps would differ: stop it by the number of steps alone.
    first = train_from_scratch(half, tmp_path / "halves")
    second = train_from_scratch(short, tmp_path / "halves")
    assert first + second == pytest.approx(straight, rel=1e-5)
    states = [torch.load(tmp_path / run / "state.pt") for run in ("straight", "halves")]
    for name, tensor in states[0]["parts"].items():
        torch.testing.assert_close(tensor, states[1]["parts"][name])


@pytest.mark.parametrize("state", ["cut", "foreign", "code", "another network"])
def test_a_state_that_no_training_can_go_on_from(tmp_path: Path, state: str) -> None:
    """torch would advise to load the file without its safeguard."""
    path = tmp_path / "state.pt"
    parts = torch.nn.ModuleDict({"network": torch.nn.Linear(2, 3)}).state_dict()
    torch.save({"step": 3, "parts": parts, "optimiser": {}}, path)
    if state == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif state == "foreign":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    elif state == "code":
        torch.save({"step": 3, "parts": Path("x")}, path)
    network: Any = torch.nn.Linear(4, 4)
    with pytest.raises(InputError) as error:
        train(network, None, None, Optimisation(), tmp_path, tmp_path)  # type: ignore[arg-type]
    assert str(error.value) == (
        f"{path} is damaged or the state of another training, so that this one cannot go on from "
        "it; choose another --out, or delete the file to begin again"
    )


@pytest.mark.parametrize("diverge", [lambda x: x * float("nan"), lambda x: torch.sqrt(x - x)])
def test_a_training_that_diverges_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diverge: Callable[[Tensor], Tensor]
) -> None:
    """By its loss or its gradients; neither network nor state has got them."""
    network = torch.nn.Linear(1, 1)

    def answer_loss(batch: Any, sigma: float, head: Any) -> tuple[Tensor, Tensor]:
        loss = network.weight.sum()
        return diverge(loss) if batch.step == 2 else loss, torch.zeros(())

    source = SimpleNamespace(batch=lambda step: SimpleNamespace(step=step, pictures=[]))
    monkeypatch.setattr(
        "florence_onnx_export.training.loop.AnswerLoss", lambda *arguments: answer_loss
    )
    settings = Optimisation(steps=9, save_every=1)
    with pytest.raises(InputError, match=r"has diverged at step 2: .*; begin again with a lower"):
        train(network, None, source, settings, tmp_path, tmp_path)  # type: ignore[arg-type]
    state = torch.load(tmp_path / "state.pt")
    assert state["step"] == 2
    assert torch.equal(state["parts"]["network.weight"], network.weight)


def test_fine_tuning_learns_own_examples(trained: tuple[Path, list[float]], tmp_path: Path) -> None:
    rows = []
    for seed in range(4):
        draw(sample_scene(seed)).save(tmp_path / f"{seed}.png")
        for prompt, answer in (("<DocVQA>What is it?", "EXIT"), ("<DocVQA>And then?", "STOP")):
            rows.append({"image": f"{seed}.png", "prompt": prompt, "answer": answer})
    data = tmp_path / "train.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    settings = Optimisation(
        steps=60, batch_size=8, learning_rate=2e-3, warmup_steps=5, hold_steps=30
    )
    start = str(trained[0] / "model")
    losses = fine_tune(Recipe(settings, None), start, data, tmp_path / "out", validation=data)
    assert losses[-1] < 0.1 * losses[0]
    last = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])
    assert last["validation_loss"] < 0.1 * losses[0] and last["validation_exact"] == 1
    untouched = replace(settings, steps=1, learning_rate=0.0)
    tuned = str(tmp_path / "out" / "model")
    again = fine_tune(Recipe(untouched, None), tuned, data, tmp_path / "again")
    assert again[0] == pytest.approx(losses[-1], rel=0.1, abs=0.01)


def test_own_examples_are_read_in_every_form_of_prompt() -> None:
    assert expand_prompt("<OD>") == Task.OD.prompt
    assert expand_prompt("<DocVQA>What?") == "<DocVQA>What?"
    region = "<loc_1><loc_2><loc_30><loc_40>"
    assert expand_prompt(f"<REGION_TO_OCR>{region}") == f"What text is in the region {region}?"
    with pytest.raises(TaskError, match="needs text="):
        expand_prompt("<OPEN_VOCABULARY_DETECTION>")


def test_all_examples_are_checked_before_the_first_step(
    trained: tuple[Path, list[float]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of the validation too; and nothing has been written."""
    monkeypatch.setattr(runs, "transformers_model", lambda *given: pytest.fail("too late"))
    good, data, out = (tmp_path / name for name in ("good.jsonl", "bad.jsonl", "out"))
    draw(sample_scene(0)).save(tmp_path / "a.png")
    row = {"image": "a.png", "prompt": "<DocVQA>What is it?", "answer": "EXIT"}
    good.write_text(json.dumps(row))
    data.write_text("\n".join([json.dumps(row)] * 16 + [json.dumps(row | {"answer": 17})]))
    given = ["--from", str(trained[0] / "model"), "--out", str(out)]
    for files in (["--data", data], ["--data", good, "--validation", data]):
        assert main(["train", *given, *map(str, files)]) == 2
        assert capsys.readouterr().err == (
            f"florence-onnx: error: {data}:17: answer is 17, but must be text\n"
        )
    assert list(out.iterdir()) == []


def test_command_line_reports_known_errors_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "recipe.json"
    config.write_text('{"optimisation": {"stepz": 3}}')
    assert main(["train", "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    assert "stepz" in capsys.readouterr().err
    config.write_text("{}")
    assert main(["train", "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    assert "scratch" in capsys.readouterr().err
    given = ["--config", str(config), "--out", str(tmp_path / "out")]
    assert main(["train", *given, "--validation", "held-out.jsonl"]) == 2
    assert (
        capsys.readouterr().err
        == "florence-onnx: error: --validation goes with --from and --data\n"
    )


def test_the_committed_recipe_is_complete() -> None:
    recipe = load_recipe(RECIPE)
    assert recipe.scratch is not None
    last = recipe.scratch.stage(10**6)
    assert last is recipe.scratch.stages[-1] and recipe.scratch.stage(0).first_step == 0
    assert set(last.task_weights) == {task.value for task in Task} and last.most_shapes == 6
    assert recipe.scratch.grid == recipe.scratch.vision["window_size"]


def test_location_targets_prefer_near_misses() -> None:
    first, right = 10, 500
    targets = torch.tensor([first + right])

    def loss_at(bin_: int, sigma: float) -> float:
        logits = torch.zeros(1, first + 1000)
        logits[0, first + bin_] = 10.0
        return token_loss(logits, targets, first, sigma).item()

    assert loss_at(500, 8) < loss_at(504, 8) < loss_at(520, 8)
    assert loss_at(520, 8) == pytest.approx(loss_at(900, 8), rel=0.05)
    assert loss_at(504, 0) == pytest.approx(loss_at(900, 0))


def test_token_loss_is_least_at_its_targets() -> None:
    targets = torch.tensor([3, 110])
    logits = torch.full((2, 1010), -30.0)
    logits[0, 3] = 30.0
    wanted = (-0.5 * ((torch.arange(1000.0) - 100) / 4) ** 2).log_softmax(0)
    logits[1, 10:] = wanted
    assert token_loss(logits, targets, 10, 4.0).item() == pytest.approx(0, abs=1e-4)
    text_only = token_loss(logits[:1], targets[:1], 10, 4.0)
    assert text_only.item() == pytest.approx(
        functional.cross_entropy(logits[:1], targets[:1]).item()
    )


def test_smooth_code_knows_neighbours() -> None:
    code = smooth_code(1000, 64, most_waves=80)
    likeness = functional.normalize(code) @ functional.normalize(code[500:501]).T
    assert likeness[500] == pytest.approx(1) and likeness[503] > likeness[510] > likeness[700]
    assert int(likeness.argmax()) == 500


def test_dense_targets_mark_the_cells_of_things() -> None:
    scene = sample_scene(0)
    targets = dense_targets(scene, 8)
    assert targets.centres["shape_centre"].sum() == len(scene.shapes)
    assert targets.centres["word_centre"].sum() == len(scene.words)
    for shape in scene.shapes:
        x1, y1, x2, y2 = shape.box
        cell = int((y1 + y2) / 2 / scene.height * 8) * 8 + int((x1 + x2) / 2 / scene.width * 8)
        corners = targets.places["box"][cell]
        assert np.abs(corners / 1000 - np.array(shape.box) / np.tile((scene.width, scene.height), 2)
                      ).max() < 0.002  # fmt: skip


def test_schedule_warms_up_holds_and_decays_to_zero() -> None:
    settings = Optimisation(steps=100, warmup_steps=10, hold_steps=50, learning_rate=1.0)
    rates = [learning_rate(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == rates[50] == 1.0
    assert rates[75] == pytest.approx(0.5) and rates[100] == pytest.approx(0)
    assert decay_progress(20, settings) == 0 and decay_progress(200, settings) == 1


def test_the_tokenizer_keeps_prompts_short() -> None:
    tokenizer = scene_tokenizer(600)
    assert [tokenizer.token_to_id(token) for token in ("<s>", "<pad>", "</s>", "<unk>")] == [
        0,
        1,
        2,
        3,
    ]
    first = tokenizer.token_to_id("<loc_0>")
    assert first is not None
    assert tokenizer.token_to_id("<loc_999>") == first + 999
    assert tokenizer.token_to_id("<sep>") == first + 1010
    for task in Task:
        prompt = task.prompt.format(input="red circle")
        encoded = tokenizer.encode(prompt)
        assert tokenizer.decode(encoded.ids) == prompt
        assert len(encoded.ids) <= len(prompt.split()) + 8
