"""Graphs that declare or return what no Florence-2 does: an error names the graph."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from florence_onnx import Florence2
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.errors import GraphContractError, GraphRunError, ImageError, ModelError
from florence_onnx.requests import EncodedImage
from tests.helpers.tiny import copy_tiny, picture

VISION, EMBED, ENCODER, DECODER = contract.GRAPHS
Edit = Callable[[onnx.GraphProto], None]


def edited(folder: Path, graph: str, edit: Edit) -> str:
    """Changes a graph of a model folder; returns the name of its file."""
    path = folder / contract.graph_file(graph, "fp32")
    model = onnx.load(path)
    edit(model.graph)
    onnx.save(model, path)
    return contract.graph_file(graph, "fp32")


def after(output: str, kind: str, value: object, hidden: bool = True) -> Edit:
    """Puts an operator between what a graph computes and what it returns.

    Args:
        output: What the graph returns.
        kind: The operator.
        value: Its second input; where whole numbers, ONNX Runtime's inference of shapes must not
            see through them, or it corrects what the graph declares.
        hidden: Whether that is so.
    """

    def edit(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == output:
                        names[place] = f"{output}_true"
        constant = np.asarray(value)
        graph.initializer.append(numpy_helper.from_array(constant, f"{output}_given"))
        given = f"{output}_given"
        if hidden and constant.dtype == np.int64:
            graph.initializer.append(numpy_helper.from_array(np.array(0), "zero"))
            graph.node.append(helper.make_node("Size", [f"{output}_true"], ["size"]))
            graph.node.append(helper.make_node("Mul", ["size", "zero"], ["nothing"]))
            graph.node.append(helper.make_node("Add", [given, "nothing"], ["hidden"]))
            given = "hidden"
        graph.node.append(helper.make_node(kind, [f"{output}_true", given], [output]))

    return edit


def times(output: str, factor: float) -> Edit:
    return after(output, "Mul", np.float32(factor))


def longer(output: str, axis: int, by: int = 1, hidden: bool = True) -> Edit:
    pads = np.zeros((2, 4), np.int64)
    pads[1, axis] = by
    rank = {"image_features": 3, "inputs_embeds": 3, "logits": 3}.get(output, 4)
    rank = 2 if output.startswith("topk") else rank
    return after(output, "Pad", pads[:, :rank].ravel(), hidden)


def reshaped(output: str, *shape: int) -> Edit:
    return after(output, "Reshape", np.array(shape, np.int64))


def declared(name: str, shape: list[int | str] | None, element: int | None = None) -> Edit:
    """Changes what a graph says of an input or output."""

    def edit(graph: onnx.GraphProto) -> None:
        (value,) = (v for v in (*graph.input, *graph.output) if v.name == name)
        kind = element or value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(name, kind, shape))

    return edit


def more_inputs(graph: onnx.GraphProto) -> None:
    for name in ("secret", "past_key_values.7.decoder.key"):
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]))


NAN, INF = float("nan"), float("inf")
KEY = "present.1.encoder.key"
CACHE: list[int | str] = ["batch", 2, "slots", 16]

# What is declared


@pytest.mark.parametrize(
    ("graph", "edit", "words"),
    [
        (
            VISION,
            declared("pixel_values", ["batch", 1, "h", "w"]),
            r"\[batch, 3, height, width",
        ),
        (VISION, declared("image_features", None), "width of image_features .* is None, not a nu"),
        (
            VISION,
            reshaped("image_features", 1, -1),
            r"as tensor\(float\) \[None, None\], where ten",
        ),
        (EMBED, declared("input_ids", ["tokens"]), "."),
        (DECODER, declared("cache_slots", ["rows", 1, 64]), "."),
        (DECODER, declared("past_key_values.0.decoder.key", ["b", "h", "s", 16]), "axis 1 must be"),
        (DECODER, declared("past_key_values.1.decoder.value", ["b", 2, "s", "d"]), "axis 3 must"),
        (DECODER, declared("past_key_values.1.encoder.key", ["b", 2, 16]), "."),
        (DECODER, longer("present.0.decoder.key", 3, by=1, hidden=False), "2 heads of 17, where"),
        (DECODER, more_inputs, "wants more inputs: secret"),
    ],
)
def test_what_a_graph_declares(tmp_path: Path, graph: str, edit: Edit, words: str) -> None:
    folder = copy_tiny(tmp_path)
    edited(folder, graph, edit)
    with pytest.raises(ModelError, match=words) as raised:
        Florence2.load(folder)
    assert graph in str(raised.value)
    assert "\n" not in str(raised.value)


def test_another_element_type(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path)

    def edit(graph: onnx.GraphProto) -> None:
        declared("input_ids", ["batch", "tokens"], TensorProto.INT32)(graph)

    file = edited(folder, EMBED, edit)
    message = rf"{file} declares the input input_ids as tensor\(int32\) \[batch, tokens\], where"
    with pytest.raises(GraphContractError, match=message):
        Florence2.load(folder)


def test_a_width_that_is_a_name_in_every_graph(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path)
    edited(folder, VISION, declared("image_features", ["b", "n", "wide"]))
    edited(folder, EMBED, declared("inputs_embeds", ["b", "n", "wide"]))
    for name in ("inputs_embeds", "last_hidden_state"):
        edited(folder, ENCODER, declared(name, ["b", "n", "wide"]))
    edited(folder, DECODER, declared("inputs_embeds", ["r", 1, "wide"]))
    with pytest.raises(GraphContractError, match="image_features of vision_encoder is wide, not"):
        Florence2.load(folder)


def test_a_cache_of_odd_size(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path)

    def edit(graph: onnx.GraphProto) -> None:
        name = "past_key_values.2.decoder.key"
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, CACHE))

    file = edited(folder, DECODER, edit)
    with pytest.raises(GraphContractError, match=rf"{file} wants more of the cache"):
        Florence2.load(folder)


# What is returned


@pytest.mark.parametrize(
    ("graph", "edit", "words"),
    [
        (VISION, times("image_features", NAN), "NaN, infinite or .* as image_features; its weig"),
        (VISION, times("image_features", INF), "NaN, infinite or impossible numbers as image_f"),
        (VISION, longer("image_features", 2), r"image_features as tensor\(float\) \[1, \d+, 33\]"),
        (
            VISION,
            longer("image_features", 0),
            r"image_features .* where .*\[1, any, 32\] is needed",
        ),
        (
            VISION,
            longer("image_features", 1, -5),
            r"image_features as tensor\(float\) \[1, 0, 32\]",
        ),
        (EMBED, times("inputs_embeds", NAN), "numbers as inputs_embeds"),
        (EMBED, longer("inputs_embeds", 2), r"inputs_embeds as tensor\(float\) \[1, \d+, 33\]"),
        (EMBED, longer("inputs_embeds", 1), r"inputs_embeds as .* \[1, \d+, 32\] is needed"),
        (ENCODER, times(KEY, NAN), f"NaN, infinite or impossible numbers as {KEY}"),
        (ENCODER, longer(KEY, 1), rf"{KEY} as tensor\(float\) \[1, 3, \d+, 16\], where"),
        (ENCODER, longer(KEY, 2, 5), f"{KEY} as"),
        (ENCODER, longer(KEY, 2, -10), f"{KEY} as"),
        (DECODER, times("topk_log_probs", NAN), "numbers as logits and topk_log_probs"),
        (DECODER, times("topk_log_probs", -1), "infinite or impossible numbers as logits and topk"),
        (
            DECODER,
            times("topk_log_probs", INF),
            "infinite or impossible numbers as logits and topk",
        ),
        (DECODER, longer("topk_ids", 1), r"topk_ids as tensor\(int64\) \[\d, 65\], where"),
        (DECODER, longer("topk_log_probs", 0), r"topk_log_probs as .* \[1, any\] is needed"),
        (DECODER, longer("topk_log_probs", 1, -64), r"topk_log_probs as tensor\(float\) \[1, 0\]"),
        (DECODER, longer("logits", 2), r"logits as tensor\(float\) \[1, 1, 1425\], where"),
        (DECODER, longer("present.0.decoder.key", 2), "failed while it ran: "),
        (DECODER, longer("present.0.decoder.key", 3), "failed while it ran: "),
    ],
)
def test_what_a_graph_returns(
    tmp_path: Path,
    graph: str,
    edit: Edit,
    words: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = copy_tiny(tmp_path)
    file = edited(folder, graph, edit)
    model = Florence2.load(folder, threads=1)
    with pytest.raises(GraphRunError, match=rf"{file} .*{words}") as raised:
        model(picture(1), "caption")
    assert "\n" not in str(raised.value)
    out, err = capfd.readouterr()
    assert (out, err) == ("", ""), "ONNX Runtime's log is not the user's"


def test_embeddings_that_are_wider_for_one_token(tmp_path: Path) -> None:
    """A prompt has more, so the lie comes out at the first step of the search."""
    folder = copy_tiny(tmp_path)

    def edit(graph: onnx.GraphProto) -> None:
        longer("inputs_embeds", 2)(graph)
        constants = {"one": np.array(1, np.int64), "axis": np.array([1], np.int64)}
        graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
        pad = graph.node[-1]
        graph.node.insert(0, helper.make_node("Shape", ["input_ids"], ["ids_shape"]))
        graph.node.insert(1, helper.make_node("Gather", ["ids_shape", "axis"], ["tokens"]))
        graph.node.insert(2, helper.make_node("Equal", ["tokens", "one"], ["is_one"]))
        graph.node.insert(3, helper.make_node("Cast", ["is_one"], ["once"], to=TensorProto.INT64))
        node = helper.make_node("Mul", [pad.input[1], "once"], ["pads"])
        pad.input[1] = "pads"
        graph.node.insert(len(graph.node) - 1, node)

    file = edited(folder, EMBED, edit)
    message = rf"{file} returned inputs_embeds as tensor\(float\) \[1, 1, 33\], where"
    with pytest.raises(GraphRunError, match=message):
        Florence2.load(folder, threads=1)(picture(1), "caption")


@pytest.mark.parametrize("shift", [2000, -2000])
def test_tokens_that_are_not_of_the_model(tmp_path: Path, shift: int) -> None:
    folder = copy_tiny(tmp_path)
    edited(folder, DECODER, after("topk_ids", "Add", np.int64(shift)))
    with pytest.raises(
        GraphRunError, match=rf"{DECODER} returned topk_ids from .* has 1424 tokens"
    ):
        Florence2.load(folder, threads=1)(picture(1), "caption")


def test_logits_that_are_read_beyond_the_best_tokens(tmp_path: Path) -> None:
    """More beams than the graph returns candidates for."""
    folder = copy_tiny(tmp_path)

    def edit(graph: onnx.GraphProto) -> None:
        """The best tokens are right, the logits beside them are not."""
        graph.node.append(helper.make_node("Mul", ["logits_good", "nan"], ["logits"]))
        graph.initializer.append(numpy_helper.from_array(np.array([NAN], np.float32), "nan"))

    def rename(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = ["logits_good" if name == "logits" else name for name in names]
        edit(graph)

    file = edited(folder, DECODER, rename)
    model = Florence2.load(folder, threads=1)
    model(picture(1), "caption", num_beams=2, max_new_tokens=4)
    with pytest.raises(GraphRunError, match=rf"{file} returned NaN, .* as logits"):
        model(picture(1), "caption", num_beams=40, max_new_tokens=4)


def fewer_rows(name: str, rows: int) -> Edit:
    """Cuts a weight that is looked up by token or position."""

    def edit(graph: onnx.GraphProto) -> None:
        (weight,) = (tensor for tensor in graph.initializer if tensor.name == name)
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:rows], name))

    return edit


def test_ids_beyond_what_a_graph_has(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = copy_tiny(tmp_path)
    model = onnx.load(folder / contract.graph_file(EMBED, "fp32"))
    (table,) = (t.name for t in model.graph.initializer if t.dims[:1] == [1424])
    file = edited(folder, EMBED, fewer_rows(table, 10))
    with pytest.raises(GraphRunError, match=rf"{file} failed while it ran: .*Gather") as raised:
        Florence2.load(folder, threads=1)(picture(1), "caption")
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, RuntimeError)
    assert capfd.readouterr() == ("", "")


def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    folder, photo = copy_tiny(tmp_path), tmp_path / "photo.png"
    Image.fromarray(picture(1)).save(photo)
    file = edited(folder, VISION, times("image_features", NAN))
    assert main(["run", str(photo), "--task", "od", "--model", str(folder)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("florence-onnx: ")
    assert f"{file} returned NaN" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("shape", [(32,), (1, 5, 32), (5, 31), ()])
def test_an_encoded_image_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = Florence2.load(copy_tiny(tmp_path), threads=1)
    scene = EncodedImage(np.zeros(shape, np.float32), (10, 10))
    with pytest.raises(ImageError, match="encoded by another model"):
        model(scene, "caption")


def test_damaged_weights_give_an_answer_or_an_error_that_names_the_graph(tmp_path: Path) -> None:
    """A number in some weight of some graph becomes what float16 or a broken disk makes of it."""
    rng = np.random.default_rng(4)
    refused = 0
    for number in range(24):
        folder = copy_tiny(tmp_path / str(number))
        graph = contract.GRAPHS[number % 4]

        def edit(model: onnx.GraphProto) -> None:
            weights = [t for t in model.initializer if t.data_type == TensorProto.FLOAT and t.dims]
            weight = weights[rng.integers(len(weights))]
            array = numpy_helper.to_array(weight).copy()
            array.flat[rng.integers(0, array.size, 1 + array.size // 10)] = rng.choice(
                [NAN, INF, -INF, 3e38, -3e38]
            )
            weight.CopyFrom(numpy_helper.from_array(array, weight.name))

        edited(folder, graph, edit)
        model = Florence2.load(folder, threads=1)
        try:
            result = model(picture(number), "caption", max_new_tokens=6)
        except GraphRunError as error:
            refused += 1
            assert "onnx/" in str(error), json.dumps(str(error))
        else:
            assert result.score is not None and np.isfinite(result.score), graph
    assert 0 < refused < 24
