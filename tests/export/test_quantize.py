"""Other precisions of a model folder and of an export."""

import json
import operator
import os
import shutil
from collections import namedtuple
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from florence_onnx import Florence2
from florence_onnx.assets.reading import Assets
from florence_onnx.assets.report import REPORT
from florence_onnx.cli.program import build_parser, main
from florence_onnx.engine import contract
from florence_onnx.errors import (
    DiskSpaceError,
    ExportError,
    InputError,
    ModelFileError,
    ModelNotFoundError,
    OutputExistsError,
    PrecisionError,
    ValidationError,
)
from florence_onnx.exporting import SHARES
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.resolver import DEMO
from florence_onnx.tasks import InputKind, Task
from florence_onnx_export import exporter
from florence_onnx_export.quantization import calibration, pictures
from florence_onnx_export.quantization import quantize as quantizing
from florence_onnx_export.quantization.bounds import BOUNDS, GRAPH_LIMITS, Bounds
from florence_onnx_export.quantization.fidelity import STEPS, Feeds, relative_error
from florence_onnx_export.quantization.matmuls import matmul_weights
from florence_onnx_export.quantization.methods import FP32, levels
from florence_onnx_export.quantization.pictures import own_pictures
from florence_onnx_export.quantization.quantize import quantize
from florence_onnx_export.quantization.reference import Reference
from tests.helpers.exports import Exported, copied_graphs
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.kernels import empty_tensors, profiled
from tests.helpers.onnx_graphs import tiny_graph, weight_names
from tests.helpers.tiny import TINY, aged, copy_tiny, picture


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def graph_files(*precisions: str) -> set[str]:
    return {contract.graph_file(graph, name) for name in precisions for graph in contract.GRAPHS}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    """A copy of the tiny model in all precisions, what was returned and said; not to be changed."""
    folder = copy_tiny(tmp_path_factory.mktemp("quantized"))
    said: list[str] = []
    return folder, quantize(folder, list(BOUNDS), progress=said.append), said


def test_the_space_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(12_345))
    folder = copy_tiny(tmp_path)
    before = files(folder)
    with pytest.raises(DiskSpaceError, match=r"^quantising needs .* and 12 kB are free there$"):
        quantize(folder, ["q8"], progress=lambda line: pytest.fail("work began"))
    assert files(folder) == before


def test_every_precision_is_added_and_reported(
    quantized: tuple[Path, dict[str, Any], list[str]],
) -> None:
    folder, entries, said = quantized
    assert files(folder) == {*contract.ASSETS, REPORT, *graph_files("fp32", *BOUNDS)}
    assert json.loads((folder / REPORT).read_text()) == {"precisions": entries}
    for name, entry in entries.items():
        assert entry["bounds"] == {
            key: pytest.approx(value) for key, value in vars(BOUNDS[name]).items()
        }
        for key, bound in entry["bounds"].items():
            assert 0 < entry["fidelity"][key] <= bound
        assert entry["fidelity"]["requests"] == 105
        assert entry["bytes"] == {
            Path(file).name: (folder / file).stat().st_size for file in graph_files(name)
        }
        assert any(f"comparing {name} with float32" in line for line in said)
        assert set(entry["versions"]) == {"florence-onnx", "onnx", "onnxruntime"}
        written = sum(entry["bytes"].values())
        float32 = sum((folder / file).stat().st_size for file in graph_files("fp32"))
        assert written <= SHARES[name] * float32 + 600_000  # The tiny graphs are mostly nodes.
    assert entries["fp16"]["fidelity"]["first_logits"] < entries["q8"]["fidelity"]["first_logits"]
    assert entries["q8"]["fidelity"]["first_logits"] < entries["q4"]["fidelity"]["first_logits"]


@pytest.mark.parametrize("precision", list(BOUNDS))
def test_the_runtime_answers_at_every_precision(
    quantized: tuple[Path, dict[str, Any], list[str]], precision: str
) -> None:
    folder = quantized[0]
    model = Florence2.load(folder, precision=precision, providers=["CPUExecutionProvider"])
    exact = Florence2.load(folder, providers=["CPUExecutionProvider"])
    image, exact_image = model.encode(picture(1)), exact.encode(picture(1))
    assert relative_error(image.image_features, exact_image.image_features) < 0.03
    tasks = [task for task in Task if task.input_kind is InputKind.NONE]
    greedy: GenerationOptions = {"num_beams": 1, "max_new_tokens": 12}
    answers = [model(image, task, **greedy).token_ids for task in tasks]
    expected = [exact(exact_image, task, **greedy).token_ids for task in tasks]
    # A random model is seldom sure of a token, so a few answers may differ.
    assert sum(map(operator.eq, answers, expected)) > 0.7 * len(tasks)


@pytest.mark.parametrize("precision", list(BOUNDS))
def test_no_operator_gets_an_empty_tensor(
    quantized: tuple[Path, dict[str, Any], list[str]], precision: str, tmp_path: Path
) -> None:
    path = quantized[0] / contract.graph_file(contract.VISION_ENCODER, precision)
    session = profiled(path, tmp_path / "profile")
    for size in (1, 16, 32, 64):
        (features,) = session.run(None, {"pixel_values": np.zeros((1, 3, size, size), np.float32)})
        assert np.isfinite(features).all()
    assert empty_tensors(session) == []


def test_q8_graphs_are_smaller(quantized: tuple[Path, dict[str, Any], list[str]]) -> None:
    def weights(graph: str, precision: str) -> int:
        model = onnx.load(quantized[0] / contract.graph_file(graph, precision))
        return sum(len(tensor.raw_data) for tensor in model.graph.initializer)

    for graph in (contract.EMBED_TOKENS, contract.ENCODER, contract.DECODER):
        assert weights(graph, "q8") < 0.45 * weights(graph, "fp32")
        assert weights(graph, "fp16") < 0.55 * weights(graph, "fp32")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return copy_tiny(tmp_path)


@pytest.fixture
def one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures less, where it is not the measures that are tested."""
    monkeypatch.setattr(quantizing, "Reference", partial(Reference, pictures=1))


def tight(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setitem(BOUNDS, precision, Bounds(1e-9, 1e-9))


@pytest.mark.usefixtures("one_request")
def test_a_precision_beyond_its_bound_is_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight(monkeypatch, "fp16")
    before = files(tiny)
    wanted = r"fp16: image_features differs from float32 by 0\.\d\d%, and .*pass --accept-error"
    with pytest.raises(ValidationError, match=wanted):
        quantize(tiny, ["fp16"])
    assert files(tiny) == before
    quantize(tiny, ["fp16"], accept_error=True)
    assert files(tiny) == before | graph_files("fp16") | {REPORT}


@pytest.mark.usefixtures("one_request")
def test_precision_is_mixed_only_beyond_the_bounds_and_unless_the_error_is_accepted(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = dict.fromkeys(contract.GRAPHS, 0.02)
    error = quantize(tiny, ["q8"])["q8"]["fidelity"]["image_features"]
    limits[contract.VISION_ENCODER] = 0.8 * error
    monkeypatch.setitem(GRAPH_LIMITS, "q8", limits)
    assert quantize(tiny, ["q8"], force=True)["q8"]["mixed_precision"] == {}
    monkeypatch.setitem(BOUNDS, "q8", Bounds(0.9 * error, 0.03))
    said: list[str] = []
    entry = quantize(tiny, ["q8"], force=True, progress=said.append)["q8"]
    assert any(line.startswith("q8: image_features differs from float32 by") for line in said)
    assert 0 < len(entry["mixed_precision"][contract.VISION_ENCODER]) < 5
    assert entry["fidelity"]["image_features"] <= 0.9 * error
    assert quantize(tiny, ["q8"], force=True, accept_error=True)["q8"]["mixed_precision"] == {}


@pytest.mark.usefixtures("one_request")
def test_fast_the_vision_encoder_is_mixed_at_once(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def errors(fast: bool, accept_error: bool = False) -> tuple[float, dict[str, Any], list[str]]:
        said: list[str] = []
        q8 = quantize(tiny, ["q8"], True, accept_error, progress=said.append, fast=fast)["q8"]
        return q8["fidelity"]["image_features"], q8["mixed_precision"], said

    error, mixed, _ = errors(fast=True)
    assert mixed == {}
    bound = 0.9 * error
    monkeypatch.setitem(BOUNDS, "q8", Bounds(bound, 0.03))
    error, mixed, said = errors(fast=True)
    assert error <= bound
    assert mixed.keys() == {contract.VISION_ENCODER}
    assert mixed[contract.VISION_ENCODER]
    # Every graph is written once, because the vision encoder is measured before the next graph.
    assert sum(line.startswith("writing") for line in said) == len(contract.GRAPHS)
    assert errors(fast=True, accept_error=True)[1] == {}


@pytest.mark.usefixtures("one_request")
def test_fast_a_vision_encoder_within_its_bound_is_not_made_again(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fidelity = quantize(tiny, ["q8"], fast=True)["q8"]["fidelity"]
    bounds = Bounds(1.1 * fidelity["image_features"], 0.9 * fidelity["first_logits"])
    monkeypatch.setitem(BOUNDS, "q8", bounds)
    limits = {**GRAPH_LIMITS["q8"], contract.ENCODER: 1e-9, contract.DECODER: 1e-9}
    monkeypatch.setitem(GRAPH_LIMITS, "q8", limits)
    said: list[str] = []
    entry = quantize(tiny, ["q8"], force=True, progress=said.append, fast=True)["q8"]
    assert entry["fidelity"]["first_logits"] <= bounds.first_logits
    assert entry["mixed_precision"].keys() == {contract.ENCODER, contract.DECODER}
    written = [line for line in said if line.startswith("writing")]
    assert len(written) == len(contract.GRAPHS) + 2
    assert not set(written[:2]) & set(written[-2:])


@pytest.mark.usefixtures("one_request")
def test_the_report_says_what_is_mixed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {**GRAPH_LIMITS["q4"], contract.DECODER: 0.02}
    monkeypatch.setitem(GRAPH_LIMITS, "q4", limits)
    monkeypatch.setitem(BOUNDS, "q4", Bounds(0.02, 0.03))
    mixed = quantize(tiny, ["q4"])["q4"]["mixed_precision"][contract.DECODER]
    assert mixed
    model = onnx.load(tiny / contract.graph_file(contract.DECODER, "q4"))
    names = set(weight_names(model))
    matmuls = matmul_weights(tiny_graph(contract.DECODER).graph)
    for name, (usual, *_) in levels("q4", contract.DECODER, list(matmuls), []).items():
        suffix = {"blocks4": ".int4", FP32: ""}.get(mixed.get(name, usual), ".int8")
        assert f"{name}{suffix}" in names


def test_existing_graphs_are_kept_without_force(
    quantized: tuple[Path, dict[str, Any], list[str]],
) -> None:
    with pytest.raises(OutputExistsError, match=r"vision_encoder_q4\.onnx exists; pass --force"):
        quantize(quantized[0], ["q4"])


@pytest.mark.usefixtures("one_request")
def test_nothing_is_left_when_it_fails(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(tiny)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save_model", fail)
    with pytest.raises(ExportError, match=r"quantising .*tiny failed: .*No space left"):
        quantize(tiny, ["q8"])
    assert files(tiny) == before


@pytest.mark.usefixtures("one_request")
def test_the_report_of_the_export_is_kept(tiny: Path) -> None:
    (tiny / REPORT).write_text('{"checkpoint": "mine", "precisions": {"q4": 1}}')
    entries = quantize(tiny, ["fp16"])
    report = json.loads((tiny / REPORT).read_text())
    assert report == {"checkpoint": "mine", "precisions": {"q4": 1, **entries}}


def test_a_broken_report_is_named(tiny: Path) -> None:
    (tiny / REPORT).write_text("{")
    with pytest.raises(ModelFileError, match=r"export_report\.json cannot be read as JSON"):
        quantize(tiny, ["fp16"])
    assert files(tiny).isdisjoint(graph_files("fp16"))
    (tiny / REPORT).write_text("[]")
    with pytest.raises(ModelFileError, match="holds list, not a JSON object"):
        quantize(tiny, ["fp16"])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_precision_that_cannot_be_made(tiny: Path, precision: str) -> None:
    with pytest.raises(PrecisionError, match=f"'{precision}'; choose from fp16, q8, q4"):
        quantize(tiny, [precision])


def test_a_folder_whose_decoder_has_its_former_name(tiny: Path) -> None:
    aged(tiny)
    quantize(tiny, ["fp16"])
    former = {"onnx/decoder_with_past_model.onnx"}
    present = graph_files("fp16", "fp32") - {contract.graph_file(contract.DECODER, "fp32")}
    assert files(tiny) == {*contract.ASSETS, REPORT, *present, *former}
    for precision in ("fp32", "fp16"):
        model = Florence2.load(tiny, precision=precision, providers=["CPUExecutionProvider"])
        assert model(picture(1), "od", max_new_tokens=4).token_ids


def test_a_folder_without_float32_graphs(tiny: Path) -> None:
    for file in graph_files("fp32"):
        (tiny / file).unlink()
    with pytest.raises(ModelFileError, match=r"vision_encoder\.onnx is missing"):
        quantize(tiny, ["q8"])


@pytest.mark.usefixtures("one_request")
def test_a_copy_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose float32 graphs store their weights in float16."""
    monkeypatch.setattr(calibration, "_SEEDS", calibration._SEEDS[:1])
    folder = tmp_path / "my-demo"
    shutil.copytree(DEMO, folder)
    assert main(["quantize", str(folder), "--precision", "q8,fp16", "--accept-error"]) == 0
    assert [line[:4] for line in capsys.readouterr().out.splitlines()] == ["q8: ", "fp16"]
    exact = Florence2.load(folder).encode(picture(0)).image_features
    for precision in ("q8", "fp16"):
        model = Florence2.load(folder, precision=precision, providers=["CPUExecutionProvider"])
        assert relative_error(model.encode(picture(0)).image_features, exact) < 0.03


@pytest.mark.parametrize("place", ["", "onnx"])
def test_a_folder_that_cannot_be_written_is_refused_first(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    closed = tiny / place
    allowed = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: not (path == closed and mode & os.W_OK) and allowed(path, mode),
    )
    with pytest.raises(ExportError) as error:
        quantize(tiny, ["q8"], progress=lambda line: pytest.fail("work began"))
    assert str(error.value) == f"{closed} cannot be written; quantise a copy: cp -rL {tiny} COPY"


# Weights in files beside the graphs


@pytest.fixture(scope="module")
def with_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny model, every weight in a file beside its graph."""
    folder = copy_tiny(tmp_path_factory.mktemp("with-data"))
    for graph in contract.GRAPHS:
        path = folder / contract.graph_file(graph, "fp32")
        data = path.name + contract.DATA_SUFFIX
        onnx.save_model(tiny_graph(graph), path, save_as_external_data=True, location=data)
    return folder


@pytest.mark.usefixtures("one_request")
def test_files_that_have_hard_links(with_data: Path, tmp_path: Path) -> None:
    """The onnx package refuses to read weights from such files; ONNX Runtime reads them."""
    linked = shutil.copytree(with_data, tmp_path / "linked", copy_function=os.link)
    plain = shutil.copytree(with_data, tmp_path / "plain")
    for folder in (linked, plain):
        quantize(folder, list(BOUNDS), accept_error=True)
    for name in graph_files(*BOUNDS):
        assert (linked / name).read_bytes() == (plain / name).read_bytes()


def test_weights_that_are_links_to_elsewhere(
    with_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As all files are in the hub's cache, which ONNX Runtime opens."""
    blobs, folder = tmp_path / "blobs", tmp_path / "a model"
    (folder / "onnx").mkdir(parents=True)
    blobs.mkdir()
    for number, name in enumerate(sorted(files(with_data))):
        shutil.copy(with_data / name, blobs / str(number))
        (folder / name).symlink_to(blobs / str(number))
    Florence2.load(folder)
    assert main(["quantize", str(folder), "--precision", "q8"]) == 2
    said = capsys.readouterr().err
    assert f"onnx_data is a link to {blobs}" in said
    assert said.endswith(f"; quantise a copy without links: cp -rL '{folder}' COPY\n")
    assert "Traceback" not in said and not graph_files("q8") & files(folder)


# The command line, and precisions of an export


@pytest.mark.usefixtures("one_request")
def test_the_command(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(tiny), "--precision", "q8, fp16"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["q8", "fp16"]
    assert all("image features" in line and "tokens equal" in line for line in lines)
    assert "writing and measuring vision_encoder_quantized.onnx" in err
    assert main(["quantize", str(tiny), "--precision", "q8"]) == 2
    assert "pass --force" in capsys.readouterr().err


# Pictures of the user's own


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with six pictures, a copy, a broken one, a hidden one and what is no picture."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for seed in range(6):
        place = folder / "more" if seed % 2 else folder
        Image.fromarray(picture(seed)).save(place / f"{seed}.png")
    shutil.copy(folder / "0.png", folder / "more" / "copy.PNG")
    shutil.copy(folder / "0.png", folder / "._0.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not a picture either")
    return folder


def test_pictures_of_the_users_own(
    tiny: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["quantize", str(tiny), "--precision", "q8", "--pictures", str(photos)]
    assert main(wanted) == 0
    out, err = capsys.readouterr()
    assert out.rstrip().endswith(f"on 3 pictures of {photos} held back")
    skipped = [line for line in err.splitlines() if "skipped" in line]
    assert len(skipped) == 1 and "broken.jpg" in skipped[0]
    entry = json.loads((tiny / REPORT).read_text())["precisions"]["q8"]
    assert entry["pictures"] == {"folder": str(photos), "rounded_for": 3, "held_back": 3}
    assert entry["fidelity"]["requests"] == 45


def test_weights_are_rounded_for_some_pictures_and_measured_on_others(
    tiny: Path, photos: Path
) -> None:
    assets = Assets.read(tiny)
    own = own_pictures(photos, assets, lambda line: None)
    shown = {request.pixel_values.tobytes() for request in own.rounded_for}
    held_back = {request.pixel_values.tobytes() for request in own.held_back}
    assert len(shown) == len(held_back) == 3
    assert not shown & held_back
    every = {assets.preprocessor(picture(seed))[None].tobytes() for seed in range(6)}
    assert shown | held_back == every
    assert all(len(set(r.prompts)) == len(Task) for r in (*own.rounded_for, *own.held_back))
    reference = Reference(tiny, own=own)
    assert reference.requests is own.held_back
    feeds = reference.measured(contract.VISION_ENCODER)._calibration()
    assert {feed["pixel_values"].tobytes() for feed in feeds} == shown


def test_the_fast_way_rounds_for_fewer_pictures_and_measures_on_fewer(
    tiny: Path, photos: Path
) -> None:
    """And the bounds are those of the usual way."""
    assert main(["quantize", str(tiny), "--precision", "q8", "--fast"]) == 0
    entry = json.loads((tiny / REPORT).read_text())["precisions"]["q8"]
    assert entry["fast"] is True and entry["fidelity"]["requests"] == len(Task)
    assert entry["bounds"] == asdict(BOUNDS["q8"])
    ways = [Reference(tiny, fast=fast) for fast in (False, True)]
    usual, fast = ({graph: _shown(way, graph) for graph in _ROUNDED} for way in ways)
    assert {graph: len(feeds) for graph, feeds in fast.items()} == {
        contract.VISION_ENCODER: 2,
        contract.ENCODER: 2,
        contract.DECODER: 2 * STEPS,
    }
    for graph, feeds in fast.items():
        assert len(usual[graph]) == 2 * len(feeds), graph
    rows = [len(feeds[contract.DECODER][0]["inputs_embeds"]) for feeds in (usual, fast)]
    assert rows == [len(Task), len(Task) // 3]
    measured = {request.pixel_values.tobytes() for request in ways[1].requests}
    assert not measured & {f["pixel_values"].tobytes() for f in fast[contract.VISION_ENCODER]}
    own = own_pictures(photos, Assets.read(tiny), lambda line: None, fast=True)
    assert (len(own.rounded_for), len(own.held_back)) == (2, 2)


_ROUNDED = (contract.VISION_ENCODER, contract.ENCODER, contract.DECODER)


def _shown(reference: Reference, graph: str) -> list[Feeds]:
    return list(reference.measured(graph)._calibration())


def test_no_more_pictures_are_used_than_are_needed(
    tiny: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MOST", 5)
    own = own_pictures(photos, Assets.read(tiny), lambda line: None)
    assert (len(own.rounded_for), len(own.held_back)) == (3, 2)


def test_too_few_pictures(tiny: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(tiny)
    for path in photos.glob("more/[135].png"):
        path.unlink()
    for folder, message in (
        (photos, "too few pictures: of its 5 picture files 3 can be read and differ, and 4 are"),
        (photos / "none", "none is not a folder"),
    ):
        assert main(["quantize", str(tiny), "--precision", "q8", "--pictures", str(folder)]) == 2
        assert message in capsys.readouterr().err
        assert files(tiny) == before


def test_pictures_in_a_folder_that_cannot_be_read(
    tiny: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != photos and allowed(path, mode))
    with pytest.raises(InputError, match=f"^{photos} cannot be read; change its permissions$"):
        quantize(tiny, ["q8"], pictures=photos)


def test_pictures_that_no_weights_are_rounded_for(
    native: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(native.checkpoint), str(tmp_path / "out"), "--pictures", str(tmp_path)]
    assert main(["export", *arguments]) == 2
    assert "--pictures needs a precision to round weights for" in capsys.readouterr().err
    browser = ["--precision", "fp32,q8", "--layout", "transformers.js"]
    assert main(["export", *arguments, *browser]) == 2
    assert "--pictures is not for --layout transformers.js" in capsys.readouterr().err
    fast = [*arguments[:2], "--fast"]
    assert main(["export", *fast]) == 2
    assert "--fast needs a precision to round weights for" in capsys.readouterr().err
    assert main(["export", *fast, *browser]) == 2
    assert "--fast is not for --layout transformers.js" in capsys.readouterr().err


def test_a_hub_id_is_no_folder() -> None:
    with pytest.raises(ModelNotFoundError, match="'org/name' is not a folder; quantising adds"):
        arguments = ["org/name", "--precision", "q8"]
        command_arguments = build_parser().parse_args(["quantize", *arguments])
        command_arguments.execute(command_arguments)


def test_graphs_of_the_hub_are_quantised_as_the_refusal_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_empty_cache(monkeypatch, tmp_path / "hub")
    graphs = {name: (TINY / name).read_bytes() for name in files(TINY)}
    with serve_hub("org/name", graphs) as hub:
        use_hub(monkeypatch, hub.url)
        assert main(["quantize", "org/name", "--precision", "fp16,q8"]) == 2
        said = capsys.readouterr().err
        assert 'cp -rL "$(florence-onnx pull org/name)" MODEL' in said
        assert said.rstrip().endswith("florence-onnx quantize MODEL --precision fp16,q8")
        assert main(["pull", "org/name"]) == 0
    pulled = Path(capsys.readouterr().out.strip())
    before = files(pulled)
    folder = shutil.copytree(pulled, tmp_path / "MODEL")
    assert main(["quantize", str(folder), "--precision", "fp16"]) == 0
    assert files(folder) == before | graph_files("fp16") | {REPORT}
    assert files(pulled) == before
    assert not any(path.is_symlink() for path in folder.rglob("*"))


@pytest.fixture
def fast_export(native: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies graphs instead of tracing them, and measures less."""
    monkeypatch.setattr(quantizing, "Reference", partial(Reference, pictures=1))
    monkeypatch.setattr(exporter, "trace", copied_graphs(native.folder))


def check_exported(out: Path, *precisions: str) -> None:
    written = graph_files(*precisions)
    assert files(out) == {*contract.ASSETS, REPORT, *written}
    report = json.loads((out / REPORT).read_text())
    assert list(report["precisions"]) == ["q8"]
    assert set(report["bytes"]) == {Path(file).name for file in written}


@pytest.mark.usefixtures("fast_export")
def test_an_export_in_two_precisions(
    native: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(native.checkpoint), str(out), "--precision", "fp32,q8"]) == 0
    check_exported(out, "fp32", "q8")
    assert capsys.readouterr().out.splitlines()[1].startswith("q8: ")


@pytest.mark.usefixtures("fast_export")
def test_an_export_without_float32(
    native: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "validate", lambda spec, path, precision: [])
    exporter.export(native.checkpoint, tmp_path / "out", precisions=["q8"])
    check_exported(tmp_path / "out", "q8")


@pytest.mark.usefixtures("fast_export")
def test_an_export_beyond_a_bound_writes_nothing(
    native: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "validate", lambda spec, path, precision: [])
    tight(monkeypatch, "fp16")
    with pytest.raises(ValidationError, match="fp16: image_features"):
        exporter.export(native.checkpoint, tmp_path / "out", precisions=["fp32", "fp16"])
    assert not files(tmp_path)
    exporter.export(native.checkpoint, tmp_path / "out", ["fp16"], accept_error=True)
    assert graph_files("fp16") < files(tmp_path / "out")
