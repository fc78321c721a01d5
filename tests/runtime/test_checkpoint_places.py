"""Where a checkpoint's files are: a folder in a repository, a file, and another model's assets."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from florence_onnx import Florence2
from florence_onnx.assets.reading import Assets
from florence_onnx.assets.writing import write_assets
from florence_onnx.checkpoints.checkpoint import Checkpoint, read_checkpoint
from florence_onnx.checkpoints.finding import find_checkpoint
from florence_onnx.errors import CheckpointError, ModelNotFoundError
from florence_onnx.hub import Access, cached, commit_of
from florence_onnx.model_cache import cached_models
from florence_onnx.resolver import local_folder
from tests.helpers.hub import COMMIT, Hub, serve_hub, use_empty_cache, use_hub
from tests.helpers.plain_checkpoints import (
    NATIVE,
    ORIGINAL,
    PREPROCESSING,
    Json,
    native_arrays,
    original_arrays,
    save_arrays,
    save_json,
    save_plain,
)
from tests.helpers.tiny import TINY, change_json
from tests.helpers.tokenizers import VOCABULARY, make_tokenizer

FOREIGN = b'{"model_type": "blip-2"}'


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    use_empty_cache(monkeypatch, tmp_path / "hub")
    with serve_hub("org/icons", {}) as server:
        use_hub(monkeypatch, server.url)
        yield server


def files(folder: Path, prefix: str = "") -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {prefix + path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assets_of(checkpoint: Checkpoint, out: Path) -> tuple[Assets, list[str]]:
    """What would be exported beside the graphs, and the repairs."""
    out.mkdir()
    raw, lender = checkpoint.raw_config, checkpoint.assets
    repairs = write_assets(checkpoint.folder, checkpoint.config, raw, out, lender)
    return Assets.read(out), repairs


# --- folders in repositories


@pytest.mark.parametrize("root", [b"", FOREIGN, None], ids=["empty", "foreign", "none"])
@pytest.mark.parametrize("inside", ["icon_caption", "models/icon_caption"])
def test_a_folder_in_a_repository(
    hub: Hub, tmp_path: Path, root: bytes | None, inside: str
) -> None:
    """As OmniParser's captioner, whose root has the configuration of another model or none."""
    saved = save_plain(tmp_path / "a")
    hub.files = {**files(saved, f"{inside}/"), "icon_detect/model.pt": b""}
    if root is not None:
        hub.files["config.json"] = root
    source = f"org/icons:{inside}"
    checkpoint = read_checkpoint(source)
    assert hub.fetched == set(files(saved, f"{inside}/"))
    assert checkpoint.weights.keys() == read_checkpoint(saved).weights.keys()
    assert files(checkpoint.folder).keys() == files(saved).keys()
    assert commit_of(source, checkpoint.folder) == COMMIT
    hub.requests.clear()
    assert read_checkpoint(source).folder == checkpoint.folder
    assert hub.requests == []


def test_the_folders_of_a_repository_are_offered(hub: Hub, tmp_path: Path) -> None:
    saved = files(save_plain(tmp_path / "a"), "icon_caption/")
    hub.files = {**saved, "config.json": b"", "other/README.md": b""}
    with pytest.raises(CheckpointError) as error:
        read_checkpoint("org/icons")
    assert "holds checkpoints: icon_caption; " in str(error.value)
    assert "florence-onnx export org/icons:icon_caption OUT" in str(error.value)
    with pytest.raises(ModelNotFoundError) as missing:
        read_checkpoint("org/icons:icons")
    assert str(missing.value) == (
        "hub model 'org/icons' has no folder 'icons'; its folders are: icon_caption, other"
    )


def test_a_foreign_root_beside_weights_names_the_folders(hub: Hub, tmp_path: Path) -> None:
    saved = files(save_plain(tmp_path / "a"), "icon_caption/")
    hub.files = {**saved, "config.json": FOREIGN, "model.safetensors": b"w"}
    with pytest.raises(CheckpointError, match="florence-onnx export org/icons:icon_caption OUT"):
        read_checkpoint("org/icons")
    local = tmp_path / "local"
    shutil.copytree(tmp_path / "a", local / "icon_caption")
    (local / "config.json").write_bytes(FOREIGN)
    (local / "model.safetensors").write_bytes(b"w")
    with pytest.raises(CheckpointError, match=f"export {local}/icon_caption OUT"):
        read_checkpoint(local)


@pytest.mark.parametrize(
    "source",
    [
        *("org/icons:", "org/icons:..", "org/icons:a/../b", "org/icons:/a", "org/icons:a//b"),
        *("org:icons", "org/icons:a:b", "org/icons:.git"),
    ],
)
def test_what_is_no_folder_in_a_repository(source: str) -> None:
    with pytest.raises(ModelNotFoundError, match="give a folder or a hub id"):
        local_folder(source)


def test_a_model_folder_in_a_repository(hub: Hub) -> None:
    """Opened, and found in the cache again without the hub."""
    hub.files = files(TINY, "exports/tiny/")
    source = "org/icons:exports/tiny"
    model = Florence2.load(source)
    assert model(np.zeros((8, 8, 3), np.uint8), "caption").generated
    hub.requests.clear()
    Florence2.load(source)
    assert hub.requests == []
    folder = cached(source, Access())
    assert folder is not None
    assert folder.parts[-3:] == (COMMIT, "exports", "tiny")


def test_models_made_of_folders_are_listed(tmp_path: Path) -> None:
    home = tmp_path / "florence-onnx" / "org--icons@models+icon_caption" / f"{COMMIT}-1"
    home.mkdir(parents=True)
    (model,) = cached_models(Access(cache_dir=tmp_path))
    assert model.repository == "org/icons:models/icon_caption"


# --- another model's assets


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = save_plain(tmp_path / "base")
    save_json(folder / "preprocessor_config.json", {**PREPROCESSING, "image_mean": [0.1, 0.2, 0.3]})
    return folder


def test_weights_alone_are_refused_with_the_option_to_give(tmp_path: Path) -> None:
    folder = save_plain(tmp_path / "icons", tokenizer=False)
    with pytest.raises(CheckpointError, match="as with --companions microsoft/Florence-2-base"):
        assets_of(read_checkpoint(folder), tmp_path / "out")
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="as with --companions microsoft/Florence-2-base"):
        read_checkpoint(folder)
    bare = folder / "model.safetensors"
    with pytest.raises(CheckpointError, match="as with --companions microsoft/Florence-2-base"):
        read_checkpoint(bare)


def test_what_is_missing_is_taken(tmp_path: Path, base: Path) -> None:
    generation = {"num_beams": 1, "no_repeat_ngram_size": 0, "max_new_tokens": 20}
    folder = save_plain(tmp_path / "icons", generation=generation, tokenizer=False)
    checkpoint = read_checkpoint(folder, companions=str(base))
    assert checkpoint.notes == ()
    assets, repairs = assets_of(checkpoint, tmp_path / "out")
    assert repairs[:2] == [
        f"tokenizer.json was taken from {base}",
        f"preprocessor_config.json was taken from {base}",
    ]
    assert "image_mean" not in repairs
    assert assets.tokenizer.highest_id == VOCABULARY - 1


def test_what_is_there_is_kept(tmp_path: Path, base: Path) -> None:
    """Tokenizer or preprocessing alone too."""
    folder = save_plain(tmp_path / "whole")
    assert assets_of(read_checkpoint(folder, companions=str(base)), tmp_path / "a")[1] == []
    (folder / "preprocessor_config.json").unlink()
    repairs = assets_of(read_checkpoint(folder, companions=str(base)), tmp_path / "b")[1]
    assert repairs == [f"preprocessor_config.json was taken from {base}"]
    content = json.loads((tmp_path / "b" / "preprocessor_config.json").read_text())
    assert content["image_mean"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("name", ["flux.safetensors", "model.safetensors"])
def test_a_file_of_weights(tmp_path: Path, base: Path, name: str) -> None:
    """By its path; one of the usual name in its folder too."""
    (tmp_path / "bare").mkdir()
    path = tmp_path / "bare" / name
    save_arrays(path, original_arrays(seed=3))
    sources = [path, path.parent] if name == "model.safetensors" else [path]
    for count, source in enumerate(sources):
        checkpoint = read_checkpoint(source, companions=str(base))
        assert checkpoint.notes == (f"config.json was taken from {base}",)
        assert {tensor.path for tensor in checkpoint.weights.values()} == {path}
        assets, repairs = assets_of(checkpoint, tmp_path / f"out{count}")
        assert len(repairs) == 2
        assert assets.policy.num_beams == 3


def test_a_file_beside_its_own_configuration(tmp_path: Path) -> None:
    folder = save_plain(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "epoch-3.safetensors")
    with pytest.raises(CheckpointError, match=f"export {folder}/epoch-3.safetensors OUT"):
        read_checkpoint(folder)
    checkpoint = read_checkpoint(folder / "epoch-3.safetensors")
    assert assets_of(checkpoint, tmp_path / "out")[1] == []


def test_files_of_the_hub(hub: Hub, base: Path) -> None:
    """The weights of one repository with the assets of another, whose weights are not fetched."""
    weights = (base / "model.safetensors").read_bytes()
    hub.files = {"Generation/flux v1/a.safetensors": b"", "Generation/flux.safetensors": weights}
    hub.others["org/base"] = files(base)
    source = "org/icons:Generation/flux.safetensors"
    checkpoint = read_checkpoint(source, companions="org/base")
    assert checkpoint.notes == ("config.json was taken from org/base",)
    assert hub.fetched == {"Generation/flux.safetensors"}
    assert not any("org/base/resolve" in line and "model" in line for line in hub.requests)
    hub.requests.clear()
    assert read_checkpoint(source, companions="org/base").notes == checkpoint.notes
    assert hub.requests == []
    with pytest.raises(ModelNotFoundError, match="has no file 'Generation/none"):
        read_checkpoint("org/icons:Generation/none.safetensors", companions="org/base")


def test_sizes_come_from_the_weights(tmp_path: Path, base: Path) -> None:
    """A fine-tune with more tokens and positions than its base model."""
    text = {**ORIGINAL["text_config"], "vocab_size": VOCABULARY + 4, "max_position_embeddings": 256}
    path = tmp_path / "grown.safetensors"
    save_arrays(path, original_arrays({**ORIGINAL, "text_config": text}))
    checkpoint = read_checkpoint(path, companions=str(base))
    assert checkpoint.config.text.vocab_size == VOCABULARY + 4
    assert checkpoint.config.text.max_position_embeddings == 256


def test_assets_of_another_size(tmp_path: Path, base: Path) -> None:
    change_json(base / "config.json", lambda c: c["text_config"].update(encoder_layers=2))
    path = tmp_path / "bare.safetensors"
    save_arrays(path, original_arrays())
    with pytest.raises(CheckpointError, match=r"no weights called .*encoder\.layers\.1"):
        read_checkpoint(path, companions=str(base))


@pytest.mark.parametrize("given", ["nowhere", "org/none"])
@pytest.mark.usefixtures("hub")
def test_assets_that_are_not_there(tmp_path: Path, given: str) -> None:
    folder = save_plain(tmp_path / "a", tokenizer=False)
    with pytest.raises(ModelNotFoundError, match=given):
        read_checkpoint(folder, companions=given)
    with pytest.raises(CheckpointError, match="has no tokenizer that could be taken"):
        read_checkpoint(folder, companions=str(folder))


# --- one tokenizer for both formats


def with_image(folder: Path, token_id: int = VOCABULARY) -> Path:
    """Gives a folder the tokenizer of transformers' format."""
    path = make_tokenizer(folder)

    def add(content: Json) -> None:
        token = {**content["added_tokens"][-1], "content": "<image>", "id": token_id}
        content["added_tokens"].append(token)

    change_json(path, add)
    return folder


@pytest.mark.parametrize("form", ["original", "native"])
@pytest.mark.parametrize("has_image", [True, False])
def test_tokenizers_with_and_without_image(
    tmp_path: Path, base: Path, form: str, has_image: bool
) -> None:
    if has_image:
        with_image(base)
    config = ORIGINAL if form == "original" else NATIVE
    weights = original_arrays() if form == "original" else native_arrays(NATIVE)
    folder = save_plain(tmp_path / "a", weights, config=config, tokenizer=False)
    assets, repairs = assets_of(read_checkpoint(folder, companions=str(base)), tmp_path / "out")
    is_left_out = has_image and form == "original"
    told = "tokenizer.json: <image> was left out, for which the token embedding has no row"
    assert (told in repairs) == is_left_out
    kept = has_image and not is_left_out
    assert assets.tokenizer.highest_id == VOCABULARY - (0 if kept else 1)
    assert assets.encode_prompt("Locate cars.")[0] == 0


def test_other_tokens_without_a_row_are_refused(tmp_path: Path) -> None:
    folder = with_image(save_plain(tmp_path / "a"), VOCABULARY + 1)

    def add(content: Json) -> None:
        token = {**content["added_tokens"][-1], "content": "<panel>", "id": VOCABULARY}
        content["added_tokens"].insert(-1, token)

    change_json(folder / "tokenizer.json", add)
    with pytest.raises(CheckpointError, match=f"ids go up to {VOCABULARY}, but the token embed"):
        assets_of(read_checkpoint(folder), tmp_path / "out")


def test_finding_alone_needs_no_companions(tmp_path: Path) -> None:
    folder = save_plain(tmp_path / "a", tokenizer=False)
    assert find_checkpoint(folder) == folder
