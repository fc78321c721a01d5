"""A folder with the facts of every kind of checkpoint that is on the hub, seen by the doctor."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from florence_onnx.assets.reading import Assets
from florence_onnx.assets.tokenizer_files import FLORENCE_TOKENS
from florence_onnx.assets.writing import write_assets
from florence_onnx.checkpoints.checkpoint import read_checkpoint
from florence_onnx.cli.program import main
from florence_onnx.hub import Access
from florence_onnx.parsing import parse_answer
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.plain_checkpoints import (
    IDS,
    ORIGINAL,
    POLICY,
    Array,
    Json,
    original_arrays,
    original_name,
    save_arrays,
    save_json,
    save_plain,
    save_torch,
)
from tests.helpers.tokenizers import VOCABULARY

Capture = pytest.CaptureFixture[str]
TUNED = {"transformers_version": "4.47.0.dev0", "num_beams": 3}
WRONG: Json = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
UNLIMITED = "generation_config.json: no length is given, so answers may have "
HEAD = "language_model.lm_head.weight"


def config(text: Json | None = None, vision: Json | None = None, **more: Any) -> Json:
    """config.json with other fields than usual; None takes one out."""
    parts = {
        "text_config": {**ORIGINAL["text_config"], **(text or {})},
        "vision_config": {**ORIGINAL["vision_config"], **(vision or {})},
    }
    content = {**ORIGINAL, **parts, **more}
    return {name: value for name, value in content.items() if value is not None}


def diagnose(capsys: Capture, *arguments: str | Path) -> tuple[bool, list[str]]:
    """Whether the doctor lets a checkpoint be exported, and its findings."""
    capsys.readouterr()
    status = main(["doctor", *map(str, arguments), "--json"])
    content = json.loads(capsys.readouterr().out)
    assert status == (0 if content["exportable"] else 1)
    assert content["exportable"] == (not any(f["refused"] for f in content["findings"]))
    texts = [finding["text"] for finding in content["findings"]]
    if content["exportable"]:  # No checkpoint here limits its answers, as the released ones.
        assert texts.pop().startswith(UNLIMITED)
    return content["exportable"], texts


def exported(folder: Path, out: Path) -> tuple[Assets, Path]:
    """What an export would write beside the graphs."""
    checkpoint = read_checkpoint(folder)
    out.mkdir()
    write_assets(folder, checkpoint.config, checkpoint.raw_config, out, checkpoint.assets)
    return Assets.read(out), out


# --- rows that are one folder


def wrong_ids(folder: Path) -> None:
    save_plain(folder, config=config(**WRONG), generation={**WRONG, **POLICY, **TUNED})


def beams_alone(folder: Path) -> None:
    save_plain(folder, generation=TUNED)


def no_generation_file(folder: Path) -> None:
    save_plain(folder)


def early_stopping(folder: Path) -> None:
    save_plain(folder, generation={"num_beams": 3, "early_stopping": False})


def empty_model_type(folder: Path) -> None:
    save_plain(folder, config=config(vision={"model_type": ""}))


def duplicate_keys(folder: Path) -> None:
    save_plain(folder, halved(original_arrays()))
    last = json.dumps({**ORIGINAL, "torch_dtype": "float16"})
    (folder / "config.json").write_text('{"torch_dtype": "float32", "vocab_size": 1, ' + last[1:])


def more_tokens(folder: Path) -> None:
    size = VOCABULARY + 4
    grown = config({"vocab_size": size}, vocab_size=size)
    save_plain(folder, original_arrays(grown), config=grown)
    names = ("<panel>", "<text>", "<character>", "<tail>")
    added = {name: VOCABULARY + i for i, name in enumerate(names)}
    florence = {name: VOCABULARY - 1024 + i for i, name in enumerate(FLORENCE_TOKENS)}
    save_json(folder / "added_tokens.json", {**florence, **added})


HEADS = (
    "character_character_matching_head",
    "text_character_matching_head",
    "text_tail_matching_head",
    "text_classification_head",
    "character_embedding_projection",
)


def extra_heads(folder: Path) -> None:
    heads: dict[str, Array] = {
        f"{name}.{layer}.weight": np.ones((2, 2), np.float32) for name in HEADS for layer in (0, 2)
    }
    save_plain(folder, original_arrays() | heads)


def no_decoder(folder: Path) -> None:
    kept = {n: a for n, a in original_arrays().items() if "decoder" not in n and n != HEAD}
    save_plain(folder, kept, config=config(_name_or_path="microsoft/Florence-2-base"))


def no_tokenizer(folder: Path) -> None:
    save_plain(folder, generation={**WRONG, **POLICY, **TUNED}, tokenizer=False)


def empty_root(folder: Path) -> None:
    save_plain(folder / "icon_caption")
    (folder / "config.json").write_bytes(b"")


def foreign_root(folder: Path) -> None:
    save_plain(folder / "icon_caption_florence")
    save_json(folder / "config.json", {"model_type": "blip-2"})


def two_files(folder: Path) -> None:
    save_plain(folder)
    save_torch(folder / "pytorch_model.bin", halved(original_arrays(seed=1)))


def an_adapter_beside(folder: Path) -> None:
    save_plain(folder)
    save_json(folder / "adapter_config.json", {"peft_type": "LORA", "lora_alpha": 8})
    save_arrays(folder / "adapter_model.safetensors", {})


def quantised(folder: Path) -> None:
    weights = original_arrays()
    name = "language_model.model.decoder.layers.0.fc1.weight"
    weights |= {name: weights[name].astype(np.uint8), f"{name}.absmax": np.ones(4, np.float32)}
    save_plain(folder, weights, config=config({"d_model": 1024}, {"projection_dim": 1024}))


def quanto(folder: Path) -> None:
    weights = original_arrays()
    name = "language_model.model.decoder.layers.0.fc1.weight"
    weights[f"{name}._data"] = weights.pop(name).astype(np.uint8)
    save_plain(folder, weights, config=config(_name_or_path="microsoft/Florence-2-base-ft"))


def mlx(folder: Path) -> None:
    weights = original_arrays()
    turned = {n: a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for n, a in weights.items()}
    save_plain(folder, turned, config=config(_name_or_path="Samsung/TinyClick"))
    index = {"weight_map": dict.fromkeys(turned, "model.safetensors")}
    save_json(folder / "model.safetensors.index.json", index)


def no_head(folder: Path) -> None:
    save_plain(folder, {n: a for n, a in original_arrays().items() if n != HEAD})


def positions(folder: Path) -> None:
    longer = config({"max_position_embeddings": 4096})
    save_plain(folder, original_arrays(longer), config=longer)


def lying_type(folder: Path) -> None:
    save_plain(folder, halved(original_arrays()))


def short_tokenizer_config(folder: Path) -> None:
    save_plain(folder)
    save_json(folder / "tokenizer_config.json", {"model_max_length": 1024})
    assert not (folder / "merges.txt").exists()


def repeated_tokens(folder: Path) -> None:
    save_plain(folder)
    (folder / "special_tokens_map.json").write_bytes(b"no JSON" * 700_000)
    listed = [f"<loc_{i % 1000}>" for i in range(5140)]
    save_json(folder / "tokenizer_config.json", {"additional_special_tokens": listed})


def remote_code(folder: Path) -> None:
    code = {"AutoModelForCausalLM": "microsoft/Florence-2-base-ft--modeling_florence2.Model"}
    save_plain(folder, config=config(auto_map=code))
    processor = {"size": {"height": 64, "width": 64}, "auto_map": code}
    save_json(folder / "preprocessor_config.json", processor)
    save_json(folder / "tokenizer_config.json", {"auto_map": code})


def bare(folder: Path) -> None:
    folder.mkdir()
    save_arrays(folder / "CogFlorence-2.2-Large.safetensors", original_arrays())


def prefixes(folder: Path) -> None:
    save_plain(folder, {f"_orig_mod.module.{n}": a for n, a in original_arrays().items()})


def halved(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: array.astype(np.float16) for name, array in arrays.items()}


@dataclass(frozen=True)
class Row:
    """A row of the catalogue."""

    build: Callable[[Path], None]
    findings: list[str] = field(default_factory=list)
    """What each finding holds, in order; several parts of one between bars."""
    refused: bool = False


def repaired(file: str) -> list[str]:
    names = {"bos_token_id": "<s>", "eos_token_id": "</s>", "pad_token_id": "<pad>"}
    return [f"{file}: {n} was {WRONG[n]}, is {IDS[n]} ({token})" for n, token in names.items()]


BASE = "such as microsoft/Florence-2-"
ROWS: dict[str, Row] = {
    "ids-2-1-0": Row(wrong_ids, [*repaired("config.json"), *repaired("generation_config.json")]),
    "gen-57-or-51-or-absent": Row(beams_alone),
    "gen-57-or-51-or-absent, absent": Row(no_generation_file),
    "gen-51-early_stopping-false": Row(
        early_stopping,
        ["generation_config.json: early_stopping was False, is True as in text_config"],
    ),
    "vision-model_type-empty": Row(empty_model_type),
    "duplicate-json-keys": Row(duplicate_keys),
    "vocab-51293": Row(more_tokens),
    "extra-heads": Row(extra_heads, [f"{', '.join(sorted(HEADS))} (10 tensors) are no part of"]),
    "no-decoder": Row(no_decoder, [f"export a whole Florence-2, {BASE}base"], refused=True),
    "no-tokenizer-no-preprocessor": Row(
        no_tokenizer, ["as with --companions microsoft/Florence-2-base"], refused=True
    ),
    "root-config-empty-or-foreign": Row(empty_root, ["/icon_caption OUT"], refused=True),
    "root-config-empty-or-foreign, foreign": Row(
        foreign_root, ["/icon_caption_florence OUT"], refused=True
    ),
    "two-weight-files-differ": Row(
        two_files,
        ["model.safetensors was read, and not pytorch_model.bin, which is another model: lm_h"],
    ),
    "adapter-beside-full-model": Row(an_adapter_beside, ["an adapter lies beside the weights in"]),
    "tied-or-not": Row(no_head),
    "positions-4096": Row(positions),
    "torch_dtype-lies": Row(
        lying_type,
        ["config.json: torch_dtype is float32, but the weights are float16, which was read"],
    ),
    "tokenizer_config-34-bytes / no merges.txt": Row(short_tokenizer_config),
    "special-token lists repeated 2x-5x (147/294/735 kB, 4.83 MB)": Row(repeated_tokens),
    "remote auto_map 'repo--module'": Row(remote_code),
    "quantised (bnb/quanto)": Row(quantised, [f"(bitsandbytes)|{BASE}large"], refused=True),
    "quantised (bnb/quanto), quanto": Row(quanto, [f"(quanto)|{BASE}base-ft, "], refused=True),
    "mlx": Row(mlx, ["in the layout of MLX|such as Samsung/TinyClick"], refused=True),
    "bare .safetensors": Row(bare, ["CogFlorence-2.2-Large.safetensors OUT"], refused=True),
    "prefixes module./_orig_mod./base_model.model.": Row(
        prefixes, ["names of weights held _orig_mod., module., which were taken off"]
    ),
}
OTHERS = ("subfolder", "adapter-only", "dead-base-revision")
"""Rows of more than one folder, which have tests of their own."""


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_of_the_catalogue(row: Row, tmp_path: Path, capsys: Capture) -> None:
    row.build(tmp_path / "checkpoint")
    exportable, findings = diagnose(capsys, tmp_path / "checkpoint")
    assert exportable != row.refused
    assert len(findings) == len(row.findings), findings
    for finding, expected in zip(findings, row.findings, strict=True):
        for part in expected.split("|"):
            assert part in finding


def test_every_row_has_a_folder(shared: Path) -> None:
    content = json.loads((shared / "finetunes" / "99_oddities.json").read_text(encoding="utf-8"))
    covered = {*ROWS, *(name.rpartition(", ")[0] for name in ROWS), *OTHERS}
    assert {row["id"] for row in content["oddities"]} <= covered


# --- what the rows ask for beyond a line


@pytest.mark.parametrize("build", [wrong_ids, beams_alone, no_generation_file, early_stopping])
def test_ids_and_policy_that_are_exported(tmp_path: Path, build: Callable[[Path], None]) -> None:
    build(tmp_path / "checkpoint")
    policy = exported(tmp_path / "checkpoint", tmp_path / "out")[0].policy
    assert {name: getattr(policy, name) for name in POLICY} == POLICY
    assert {name: getattr(policy, name) for name in IDS} == IDS


def test_tokens_of_a_fine_tune_survive(tmp_path: Path) -> None:
    more_tokens(tmp_path / "checkpoint")
    tokenizer = exported(tmp_path / "checkpoint", tmp_path / "out")[0].tokenizer
    assert tokenizer.encode("<panel>")[1:-1] == [VOCABULARY]
    assert tokenizer.decode([VOCABULARY, VOCABULARY + 3]) == "<panel><tail>"
    generated = tokenizer.decode([2, 0, VOCABULARY, VOCABULARY + 3, 2])
    assert parse_answer(generated, None, (9, 9), prompt="<read>").text == "<panel><tail>"


def test_remote_code_is_dropped(tmp_path: Path) -> None:
    remote_code(tmp_path / "checkpoint")
    folder = exported(tmp_path / "checkpoint", tmp_path / "out")[1]
    assert not any("auto_map" in path.read_text() for path in folder.iterdir())


def test_positions_are_those_of_the_tables(tmp_path: Path) -> None:
    positions(tmp_path / "checkpoint")
    assert exported(tmp_path / "checkpoint", tmp_path / "out")[0].max_positions == 4096
    save_json(tmp_path / "checkpoint" / "config.json", ORIGINAL)
    assert main(["doctor", str(tmp_path / "checkpoint")]) == 1


@pytest.mark.parametrize("head", ["absent", "copy", "other"])
def test_a_head_of_its_own(tmp_path: Path, capsys: Capture, head: str) -> None:
    weights = original_arrays()
    if head == "absent":
        del weights[HEAD]
    elif head == "other":
        weights[HEAD] = weights[HEAD] + np.float32(1)
    save_plain(tmp_path, weights)
    assert main(["doctor", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tied_head"] == (head != "other")


def test_companions_make_it_exportable(tmp_path: Path, capsys: Capture) -> None:
    base = save_plain(tmp_path / "base")
    no_tokenizer(tmp_path / "icons")
    bare(tmp_path / "bare")
    (file,) = (tmp_path / "bare").iterdir()
    taken = [f"{n} was taken from {base}" for n in ("tokenizer.json", "preprocessor_config.json")]
    exportable, findings = diagnose(capsys, tmp_path / "icons", "--companions", base)
    assert exportable
    assert findings == [*taken, *repaired("generation_config.json")]
    exportable, findings = diagnose(capsys, file, "--companions", base)
    assert exportable
    assert findings == [f"config.json was taken from {base}", *taken]


def test_the_same_weights_twice_are_no_finding(tmp_path: Path, capsys: Capture) -> None:
    save_plain(tmp_path)
    save_torch(tmp_path / "pytorch_model.bin", original_arrays())
    assert diagnose(capsys, tmp_path) == (True, [])
    (tmp_path / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    exportable, (finding,) = diagnose(capsys, tmp_path)
    assert exportable
    assert "not pytorch_model.bin, which could not be: " in finding
    assert "Git LFS pointer" in finding


def test_weights_of_another_name_beside(tmp_path: Path, capsys: Capture) -> None:
    save_plain(tmp_path)
    save_arrays(tmp_path / "model.fp16.safetensors", original_arrays())
    assert diagnose(capsys, tmp_path) == (True, [])
    save_arrays(tmp_path / "model.fp16.safetensors", original_arrays(seed=1))
    exportable, (finding,) = diagnose(capsys, tmp_path)
    assert exportable
    assert "and not model.fp16.safetensors, which is another model: " in finding


def test_a_folder_of_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """subfolder: OmniParser's, with the assets of another repository."""
    icons, base = tmp_path / "icons", save_plain(tmp_path / "base")
    save_plain(icons, tokenizer=False)
    use_empty_cache(monkeypatch, tmp_path / "hub")
    files = {f"icon_caption/{path.name}": path.read_bytes() for path in icons.iterdir()}
    with serve_hub("org/parser", {**files, "config.json": b""}) as hub:
        hub.others["org/base"] = {path.name: path.read_bytes() for path in base.iterdir()}
        use_hub(monkeypatch, hub.url)
        arguments = ["org/parser:icon_caption", "--companions", "org/base"]
        exportable, findings = diagnose(capsys, *arguments)
    assert exportable
    assert findings[0] == "tokenizer.json was taken from org/base"


@pytest.mark.parametrize("inside", ["", "a", "a/b"])
def test_what_lies_beside_the_weights_of_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, inside: str
) -> None:
    """An adapter and a second set of weights, told when files are fetched and ever after."""
    an_adapter_beside(tmp_path / "a")
    use_empty_cache(monkeypatch, tmp_path / "hub")
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    others = dict.fromkeys(("pytorch_model.bin", "model.fp16.safetensors"), b"other")
    source, start = ("org/tuned:" + inside, inside + "/") if inside else ("org/tuned", "")
    served = {start + name: content for name, content in {**files, **others}.items()}
    with serve_hub("org/tuned", {"README.md": b"", **served}) as hub:
        use_hub(monkeypatch, hub.url)
        fetched = diagnose(capsys, source)
        asked = len(hub.requests)
        assert diagnose(capsys, source) == fetched
        assert len(hub.requests) == asked
    assert not hub.fetched & {start + name for name in (*others, "adapter_model.safetensors")}
    exportable, (left, beside) = fetched
    assert exportable
    assert left == (
        f"model.safetensors was read; {source} also holds pytorch_model.bin, "
        "model.fp16.safetensors, which may be another model, and was not fetched"
    )
    assert "an adapter lies beside the weights" in beside


def adapter(folder: Path, **settings: Any) -> Path:
    """An adapter as peft saves it for Microsoft's format."""
    folder.mkdir()
    given = {"peft_type": "LORA", "lora_alpha": 8, "r": 2, "use_rslora": True, **settings}
    save_json(folder / "adapter_config.json", given)
    module = "base_model.model.language_model.model.decoder.layers.0.self_attn.q_proj"
    draw = np.random.default_rng(5)
    factors: dict[str, Array] = {
        f"{module}.lora_A.weight": draw.standard_normal((2, 16), np.float32),
        f"{module}.lora_B.weight": draw.standard_normal((16, 2), np.float32),
    }
    save_arrays(folder / "adapter_model.safetensors", factors)
    return folder


def test_an_adapter_alone(tmp_path: Path, capsys: Capture) -> None:
    base = save_plain(tmp_path / "base")
    folder = adapter(tmp_path / "a", base_model_name_or_path=str(base))
    exportable, findings = diagnose(capsys, folder)
    assert exportable
    assert findings == [f"the adapter in {folder} was merged into {base}"]
    name = "model.language_model.decoder.layers.0.self_attn.q_proj.weight"
    merged, plain = (read_checkpoint(f).weights[name].read() for f in (folder, base))
    stored = read_checkpoint(folder).adapter
    assert stored is not None
    module = f"base_model.model.{original_name(name)}".removesuffix(".weight")
    a, b = (stored.tensors[f"{module}.lora_{side}.weight"].read() for side in "AB")
    np.testing.assert_allclose(merged, plain + 8 / np.sqrt(2) * (b @ a), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("on_hub", [False, True])
def test_an_adapter_beside_weights_is_merged_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, on_hub: bool
) -> None:
    base, folder = save_plain(tmp_path / "base"), adapter(tmp_path / "a")
    name = "model.language_model.decoder.layers.0.self_attn.q_proj.weight"
    expected = read_checkpoint(folder, base=str(base)).weights[name].read()
    for path in base.iterdir():
        path.rename(folder / path.name)
    use_empty_cache(monkeypatch, tmp_path / "hub")
    with serve_hub("org/tuned", {p.name: p.read_bytes() for p in folder.iterdir()}) as hub:
        use_hub(monkeypatch, hub.url)
        hub.tags["v1"], source = hub.commit, "org/tuned" if on_hub else str(folder)
        state = ["--revision", "v1"] if on_hub else []
        exportable, (note,) = diagnose(capsys, source, *state)
        assert exportable
        assert "name the same checkpoint with --base too" in note
        hub.move("d" * 40, {})
        exportable, (merged,) = diagnose(capsys, source, "--base", source, *state)
        assert exportable
        assert merged.endswith(f"was merged into {source}")
        access = Access(revision="v1") if on_hub else Access()
        found = read_checkpoint(source, access, base=source).weights[name].read()
    np.testing.assert_array_equal(found, expected)


def test_a_base_revision_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """dead-base-revision: as most published adapters name it."""
    base = save_plain(tmp_path / "base")
    named = {"base_model_name_or_path": "org/base", "revision": "refs/pr/6"}
    folder = adapter(tmp_path / "a", **named)
    use_empty_cache(monkeypatch, tmp_path / "hub")
    with serve_hub("org/base", {p.name: p.read_bytes() for p in base.iterdir()}) as hub:
        use_hub(monkeypatch, hub.url)
        exportable, findings = diagnose(capsys, folder)
    assert exportable
    assert "org/base has no revision refs/pr/6 any more" in findings[1]
    assert "its main branch was taken" in findings[1]


# --- the command


def test_lines_and_exit_status(tmp_path: Path, capsys: Capture) -> None:
    wrong_ids(tmp_path / "a")
    assert main(["doctor", str(tmp_path / "a")]) == 0
    first, *lines, length, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path / 'a'}: Microsoft's format, float32, 0.")
    assert first.endswith("million parameters; geometry: its own, traced with torch")
    assert lines == [
        f"note: {line}" for f in ("config.json", "generation_config.json") for line in repaired(f)
    ]
    assert length.startswith(f"note: {UNLIMITED}")
    assert last == "it can be exported"
    mlx(tmp_path / "b")
    assert main(["doctor", str(tmp_path / "b")]) == 1
    refused, last = capsys.readouterr().out.splitlines()
    assert refused.startswith("refused: the checkpoint is in the layout of MLX")
    assert last == "it cannot be exported"


def test_all_that_stands_in_the_way_is_told(tmp_path: Path, capsys: Capture) -> None:
    """Weights that are no numbers, and a tokenizer that is missing."""
    weights = original_arrays()
    name = "language_model.model.decoder.layers.0.fc2.bias"
    weights[name] = weights[name] * np.float32("nan")
    save_plain(tmp_path / "a", weights, tokenizer=False)
    exportable, findings = diagnose(capsys, tmp_path / "a")
    assert not exportable
    assert "weight model.language_model.decoder.layers.0.fc2.bias is NaN" in findings[0]
    assert "has neither tokenizer.json" in findings[1]


@pytest.mark.parametrize("weights", [{}, {"bbox_head.weight": np.zeros((4, 16), np.float32)}])
def test_no_weights_of_a_florence(
    tmp_path: Path, capsys: Capture, weights: dict[str, Array]
) -> None:
    (tmp_path / "base").mkdir()
    folder = save_plain(tmp_path / "m")
    save_arrays(folder / "model.safetensors", weights)
    for more in ((), ("--companions", save_plain(tmp_path / "base"))):
        exportable, (refusal,) = diagnose(capsys, folder, *more)
        assert not exportable
        assert "the checkpoint has no weights called " in refusal
        (folder / "config.json").unlink(missing_ok=True)


@pytest.mark.parametrize("told", ["float16", "int4", "torch.bfloat16", "float8_e4m3fn"])
def test_types_that_the_weights_do_not_have(tmp_path: Path, capsys: Capture, told: str) -> None:
    exportable, notes = diagnose(
        capsys, save_plain(tmp_path / "m", config=config(torch_dtype=told))
    )
    assert exportable
    assert notes == [
        f"config.json: torch_dtype is {told}, but the weights are float32, which was read"
    ]


@pytest.mark.parametrize("told", ["float32", "torch.float32", "auto", None])
def test_types_that_the_weights_have(tmp_path: Path, capsys: Capture, told: str | None) -> None:
    folder = save_plain(tmp_path / "m", config=config(torch_dtype=told))
    assert diagnose(capsys, folder) == (True, [])


def test_what_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert main(["doctor", str(tmp_path / "nowhere")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    folder = adapter(tmp_path / "a", base_model_name_or_path=str(tmp_path / "gone"))
    exportable, (finding,) = diagnose(capsys, folder)
    assert not exportable
    assert "gone' is not an existing folder" in finding
