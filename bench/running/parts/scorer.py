"""What scores it: the backbone, its weights and its precision."""

from __future__ import annotations

from typing import Literal

from bench.running.parts.setting import Part, Text, setting

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ScorerSettings(Part):
    """The backbone of a run."""

    title = "What scores it"

    backbone: Text | None = setting(
        None,
        "A registered backbone, or a pipeline folder (default: the dataset's).",
        identity="content",
        classify=True,
        most_used=True,
    )
    weights: Text | None = setting(
        None,
        "A Hub id or a folder, instead of the backbone's own weights.",
        identity="content",
        classify=True,
    )
    revision: Text | None = setting(
        None, "The Hub revision of the weights.", identity="content", classify=True
    )
    dtype: Dtype | None = setting(
        None,
        "The model's dtype; errors are float32 always. auto: bfloat16 where the model"
        " was trained in it and the GPU has it, else float32 (default: the backbone's, mostly"
        " float32).",
        identity="resolved",
        classify=True,
    )
    fit_split: Text | None = setting(
        None,
        "The split that a backbone which learns is fitted on (default: train).",
        identity="content",
    )
