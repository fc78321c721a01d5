"""Runs generation cases through exported graphs on ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path

from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.engine import contract
from florence_onnx.engine.inputs import encoder_inputs
from florence_onnx.engine.sessions import Graphs, open_graphs
from florence_onnx.generation.search import Hypothesis, search
from florence_onnx.requests import EncodedImage
from florence_onnx_export.graphs.specs import build_specs
from florence_onnx_export.graphs.tracing import trace
from tests.helpers.parity import Case, Found


class OnnxRunner:
    """Exports each model that the cases need, once, and answers with the runtime's own parts."""

    def __init__(self, folder: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        self._folder = folder
        self._providers = list(providers)
        self._opened: dict[tuple[str, int], Graphs] = {}

    def __call__(self, case: Case) -> list[Found]:
        return [[(one.token_ids, one.score) for one in found] for found in self.search(case)]

    def search(self, case: Case) -> list[list[Hypothesis]]:
        """The sequences of every request, with all that the search tells of them."""
        model = self._graphs(case)
        features = model.image_features(case.pixel_values())
        height, width = case.geometry.image_size
        scenes = [EncodedImage(tokens, (width, height)) for tokens in features]
        policy = case.policy()
        mask, embeds = encoder_inputs(model, scenes, case.prompts(), policy.pad_token_id)
        steps = model.decoder.start(mask, embeds)
        return search(steps, len(scenes), policy, case.encoder_ids())

    def _graphs(self, case: Case) -> Graphs:
        key = (case.geometry.name, case.model_seed)
        if key not in self._opened:
            folder = self._folder / f"{key[0]}-{key[1]}"
            if not folder.exists():
                self._export(case, folder)
            self._opened[key] = open_graphs(folder, "fp32", self._providers, threads=1)
        return self._opened[key]

    def _export(self, case: Case, folder: Path) -> None:
        model = case.model()
        config = ModelConfig.from_dict(model.config.to_dict())
        (folder / "onnx").mkdir(parents=True)
        for spec in build_specs(config, model.state_dict()):
            trace(spec, folder / contract.graph_file(spec.name, "fp32"))
