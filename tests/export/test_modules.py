"""The export modules against transformers, stage by stage, before anything is traced."""

from dataclasses import asdict, dataclass
from typing import Any, cast

import pytest
import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration

from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.engine import contract
from florence_onnx.errors import ValidationError
from florence_onnx_export.graphs.reference import compare_with_transformers
from florence_onnx_export.graphs.specs import GraphSpec, build_specs
from florence_onnx_export.modules.layers import ACTIVATIONS
from tests.helpers.random_models import BASE, SMALL, Geometry, amplify_rounding, make_model

TINY = SMALL[0]
DEEP = next(geometry for geometry in SMALL if geometry.name == "deep-vision")
PADDED = next(geometry for geometry in SMALL if geometry.name == "padded")


def specs_of(model: Florence2ForConditionalGeneration) -> list[GraphSpec]:
    config = ModelConfig.from_dict(model.config.to_dict())
    return build_specs(config, model.state_dict())


@pytest.mark.parametrize(
    ("geometry", "height", "width"),
    [
        *((geometry, *geometry.image_size) for geometry in SMALL),
        (TINY, 96, 160),
        (PADDED, 70, 133),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_stage_equals_transformers(geometry: Geometry, height: int, width: int) -> None:
    model = make_model(geometry, seed=1).double()
    differences = compare_with_transformers(specs_of(model), model, height, width)
    assert set(differences) == set(contract.GRAPHS)
    assert max(differences.values()) < 1e-11


@pytest.mark.parametrize(("height", "width"), [(768, 768), (480, 640)])
def test_base_geometry_equals_transformers(height: int, width: int) -> None:
    model = make_model(BASE, seed=2)
    differences = compare_with_transformers(specs_of(model), model, height, width)
    assert max(differences.values()) < 1e-4


def test_modules_that_amplify_rounding_equal_transformers() -> None:
    model = make_model(DEEP, seed=1).double()
    amplify_rounding(model)
    differences = compare_with_transformers(specs_of(model), model, 96, 64)
    assert max(differences.values()) < 1e-11


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activations_are_those_of_transformers(activation: str) -> None:
    model = make_model(_Activated(**asdict(TINY), activation=activation), seed=3).double()
    compare_with_transformers(specs_of(model), model, 64, 64)


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        (contract.VISION_ENCODER, "vision_tower.blocks.0.0.spatial_block.window_attn.qkv.bias"),
        (contract.EMBED_TOKENS, "language_model.shared.weight"),
        (contract.ENCODER, "language_model.encoder.layers.1.fc2.bias"),
        (contract.DECODER, "language_model.decoder.layers.1.encoder_attn.k_proj.weight"),
    ],
)
def test_a_wrong_weight_is_noticed_and_its_stage_named(stage: str, name: str) -> None:
    model = make_model(TINY, seed=4).double()
    specs = specs_of(model)
    with torch.no_grad():
        weight = model.state_dict()[f"model.{name}"]
        weight.add_(1e-4 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValidationError, match=stage):
        compare_with_transformers(specs, model, 64, 64)


@dataclass(frozen=True)
class _Activated(Geometry):
    """A geometry with another activation function."""

    activation: str = ""

    def config(self) -> Florence2Config:
        config: Any = super().config()
        config.vision_config.activation_function = self.activation
        config.text_config.activation_function = self.activation
        return cast(Florence2Config, config)
