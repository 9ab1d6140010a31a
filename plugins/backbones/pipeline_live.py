"""A pipeline that the user has loaded, with diffusers in whatever way, as a backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.contracts.levels import Levels
from bench.errors import UserError
from bench.inputs.altered import InMemory
from bench_plugins.backbones._content import WITHOUT_EFFECT, content_hash, describe
from bench_plugins.backbones._driving import token_counts
from bench_plugins.backbones._parts import TORCH_DTYPES
from bench_plugins.backbones.pipeline import PipelineDenoiser


class LivePipeline(PipelineDenoiser):
    """A pipeline of the user's own.

    It stays as it is: its network is neither laid out anew nor compiled, and no part is moved.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        resolution: int | None = None,
        normalize: str = "half",
        call: Mapping[str, Any] | None = None,
    ) -> None:
        if training := sorted(
            name
            for name, part in pipe.components.items()
            if isinstance(part, torch.nn.Module) and part.training and name not in WITHOUT_EFFECT
        ):
            raise UserError(
                f"The pipeline's {training[0]} is in training mode, where dropout draws at random:"
                f" call pipe.{training[0]}.eval() first."
            )
        super().__init__(pipe, resolution=resolution, normalize=normalize, call=call)
        chosen: dict[str, Any] = {"resolution": resolution, "call": call and dict(call)}
        chosen["normalize"] = None if normalize == "half" else normalize
        self._chosen = {name: value for name, value in chosen.items() if value}

    @property
    def label(self) -> str:
        """Name of the pipeline in runs: that of its source, else of its class."""
        source = getattr(self.pipe, "name_or_path", None)
        return Path(source).name if source else type(self.pipe).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a run that were decided when the pipeline was handed over."""
        name = str(self.dtype).removeprefix("torch.")
        return {
            "device": str(self.device),
            "dtype": name if name in TORCH_DTYPES else "float32",  # of a quantised one
            **{name: value for name, value in self._chosen.items() if name != "call"},
        }

    def content(self) -> InMemory:
        """Return the content of the pipeline as it is now; reads every tensor."""
        described = {**describe(self.pipe), "call": self.call, "handed_over_with": self._chosen}
        described = json.loads(json.dumps(described, default=repr))
        fingerprint = content_hash(self.pipe, self.call)
        return InMemory(self.label, None, fingerprint, backbone=self, description=described)

    @staticmethod
    def check_weights(weights: Any, *, dtype: str, **parameters: Any) -> None:
        """Refuse a name in the place of a pipeline."""
        if not isinstance(weights, InMemory):
            raise UserError(
                "Backbone 'pipeline' is a pipeline in memory, which only Python can hand over:"
                " bench.run(DATASET, backbone=pipe). A folder is named itself: --backbone FOLDER."
            )

    @staticmethod
    def weight_parameters(weights: InMemory, **parameters: Any) -> Mapping[str, Any]:
        """Return class, keywords of the call, and scales of the adapters."""
        described = weights.description
        return {
            name: described[name] for name in ("class", "call", "adapters") if name in described
        }

    @staticmethod
    def token_counts(weights: InMemory, texts: Sequence[str]) -> tuple[list[int], int] | None:
        """Return the tokens of each text, and how many the longest text encoder takes."""
        return token_counts(weights.backbone, texts)

    @staticmethod
    def level_table(weights: InMemory, **parameters: Any) -> Levels:
        """Return the noise levels of the pipeline's scheduler."""
        levels: Levels = weights.backbone.levels
        return levels

    def save_memory(self) -> bool | None:  # type: ignore[override]  # the base always can
        """Change nothing: the pipeline is the user's."""
        return False
