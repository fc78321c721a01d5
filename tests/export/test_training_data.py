"""Training data and recipes: every example and field is checked before the first step."""

import json
import re
from pathlib import Path

import pytest

from florence_onnx.assets.reading import Assets
from florence_onnx.errors import InputError
from florence_onnx.tasks import Task
from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.scene import sample_scene
from florence_onnx_export.training.config import load_recipe
from florence_onnx_export.training.examples import read_examples
from tests.helpers.tiny import TINY

RECIPE = Path(__file__).parents[2] / "export/florence_onnx_export/training/demo.json"
ASSETS = Assets.read(TINY)
ROW = {"image": "a.png", "prompt": "<DocVQA>What is it?", "answer": "EXIT"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    draw(sample_scene(0)).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    return tmp_path / "train.jsonl"


def test_blank_lines_and_further_fields_are_left_out(data: Path) -> None:
    # A line ends at a line feed alone: this separator is a character of the answer.
    rows = [ROW | {"id": 3}, ROW | {"prompt": "<OD>", "answer": "a\u2028b<loc_999>"}]
    data.write_text("\r\n\n \n".join(json.dumps(r, ensure_ascii=False) for r in rows))
    examples = read_examples(data, ASSETS)
    assert [example.prompt for example in examples] == [ROW["prompt"], Task.OD.prompt]
    assert [example.answer for example in examples] == ["EXIT", "a\u2028b<loc_999>"]
    assert examples[0].image == data.parent / "a.png"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "a.png", "prompt": "x"', "cannot be read as JSON: Expecting ',' delimiter"),
        ("[1]", "holds list, not a JSON object"),
        ("[" * 100_000, "is nested deeper than 32 levels"),
        ({"answer": None}, "answer is null, but must be text"),
        ({"answer": 5}, "answer is 5, but must be text"),
        ({"answer": True}, "answer is true, but must be text"),
        ({"answer": ["EXIT"]}, 'answer is ["EXIT"], but must be text'),
        ({"answer": "car<loc_1000>"}, "answer holds '<loc_1000>', which is no location"),
        ({"answer": "car<loc_01>"}, "answer holds '<loc_01>', which is no location"),
        ({"answer": "car<loc_-1>"}, "answer holds '<loc_-1>', which is no location"),
        ({"answer": "car<loc_1.5>"}, "answer holds '<loc_1.5>', which is no location"),
        ({"answer": "car<LOC_5>"}, "answer holds '<LOC_5>', which is no location"),
        (
            {"answer": "EXIT</s>"},
            "the text 'EXIT</s>' holds the special token </s>, which is no text",
        ),
        ({"answer": "\ud83d"}, "answer holds half of a surrogate pair, which is no text"),
        ({"answer": "a " * 300}, "the answer is 30. tokens long, and the model has 160 positions"),
        ({"prompt": 3}, "prompt is 3, but must be text"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a " * 300}, "picture and prompt are 30. tokens long; the model has 160 pos"),
        ({"prompt": "a" * 900_000}, "the prompt has 900000 characters, which are more tokens"),
        ({"prompt": "what is <image>"}, "holds the special token <image>, which is no text"),
        ({"prompt": "od"}, 'prompt is "od", but must be <OD>, the task\'s tag'),
        ({"prompt": "<Caption>"}, 'prompt is "<Caption>", but must be <CAPTION>, the task\'s tag'),
        ({"prompt": " <OD>"}, 'prompt is " <OD>", but must be <OD>, the task\'s tag'),
        ({"prompt": "what <OD> is"}, "the tag <OD> must stand alone"),
        ({"prompt": "<OPEN_VOCABULARY_DETECTION>"}, "<OPEN_VOCABULARY_DETECTION> needs text="),
        ({"prompt": "<REGION_TO_OCR><loc_1>"}, "'<loc_1>' is not a region"),
        ({"prompt": "What is at <loc_1000>?"}, "prompt holds '<loc_1000>', which is no location"),
        ({"image": None}, "image is null, but must be text"),
        ({"image": 3}, "image is 3, but must be text"),
        ({"image": "b.png"}, "cannot read the picture '.*b.png': No such file"),
        ({"image": ""}, "cannot read the picture"),
        ({"image": "a\0b"}, "cannot read the picture"),
        ({"image": "folder.png"}, "cannot read the picture"),
        ({"image": "cut.png"}, "cannot decode '.*cut.png'"),
        ({"image": "train.jsonl"}, "'.*train.jsonl' is not a picture"),
        ({"image": "pointer.png"}, "pointer.png' is a Git LFS pointer"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_examples_that_are_refused_by_line(
    data: Path, line: str | dict[str, object], message: str
) -> None:
    bad = line if isinstance(line, str) else json.dumps(ROW | line)
    data.write_text("\n".join([json.dumps(ROW), "", bad, json.dumps(ROW)]))
    with pytest.raises(InputError) as error:
        read_examples(data, ASSETS)
    words = re.escape(message) if "[" in message else message
    assert re.match(rf".*/train\.jsonl:3(:| ).*{words}", str(error.value))
    assert len(str(error.value)) < 400 + 2 * len(str(data))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "train.jsonl holds no example"),
        (b"\n \r\n\n", "train.jsonl holds no example"),
        (b"\xef\xbb\xbf{}", "train.jsonl:1 cannot be read as JSON: .*byte order mark"),
        ("{}".encode("utf-16"), "train.jsonl:1 cannot be read as JSON: .*utf-8"),
        (b"\n" + b" " * (1 << 20) + b"{}", "train.jsonl:2 is longer than 1048576 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "train.jsonl is a Git LFS pointer"),
        (None, "train.jsonl cannot be read: No such file"),
    ],
)
def test_files_without_examples(data: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        data.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_examples(data, ASSETS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("optimisation.steps", value) for value in (0, True, 1.5, "9", 10**39)),
        *(("optimisation.batch_size", value) for value in (0, True, 10**9)),
        *(("optimisation.learning_rate", value) for value in (-1, "x", 1e300)),
        *(("optimisation.location_sigma", value) for value in (3, [1], [1, "2"], [-1, 1])),
        *(("optimisation.save_every", value) for value in (0, None, "x") if value is not None),
        ("optimisation.bfloat16", 1),
        ("optimisation", [1]),
        ("optimisation.stepz", 3),
        ("scratch", 3),
        ("scratch.image_size", 100_000),
        ("scratch.image_size", 100),
        ("scratch.image_size", 1024),
        ("scratch.image_size", None),
        ("scratch.pictures", 0),
        ("scratch.vision", [1]),
        ("scratch.vision.embed_dims", [1]),
        ("scratch.vision.patch_stride", None),
        ("scratch.vision.drop_path_rate", 2),
        ("scratch.text.d_model", None),
        ("scratch.text.dropout", "x"),
        ("scratch.stages", []),
        ("scratch.stages", {"first_step": 0}),
        ("scratch.stages.0.first_step", 1),
        ("scratch.stages.2.first_step", 2500),
        ("scratch.stages.1.questions", 11),
        ("scratch.stages.1.task_weights", {"<ODD>": 1}),
        ("scratch.stages.1.task_weights.<OD>", -1),
        ("scratch.stages.1.batch_size", None),
        ("scratches", {}),
    ],
)  # fmt: skip
def test_recipes_that_are_refused_by_field(tmp_path: Path, field: str, value: object) -> None:
    content = json.loads(RECIPE.read_text())
    *sections, name = field.split(".")
    place = content
    for section in sections:
        place = place[int(section) if section.isdigit() else section]
    place[name] = value
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert str(error.value).startswith(f"{path}: ")
    # The first steps of all stages are checked together.
    assert ("stages" if name == "first_step" else name) in str(error.value)


@pytest.mark.parametrize("field", ["vision.depths", "text.decoder_layers"])
def test_recipes_of_networks_that_cannot_be(tmp_path: Path, field: str) -> None:
    content = json.loads(RECIPE.read_text())
    section, name = field.split(".")
    content["scratch"][section][name] = 10**9
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"recipe\.json: scratch: {section}_config\.{name} is "):
        load_recipe(path)
