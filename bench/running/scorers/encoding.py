"""The encoded prompts of a denoiser's run, and the keys under which things are remembered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.running.prepared import Prepared

if TYPE_CHECKING:
    from bench.engine.denoiser import CheckedDenoiser
    from bench.engine.trees import Tree


def encode_texts(prepared: Prepared, backbone: CheckedDenoiser) -> tuple[Tree, Tree | None]:
    """Return the conditioning of a run's prompts, and of the null under guidance."""
    from bench.engine.embeddings import embed_null, embed_prompts

    config, key = prepared.config, _conditioning_key(prepared)
    conditioning = embed_prompts(backbone, key, prepared.prompts.texts, config.subtract_null)
    return conditioning, embed_null(backbone, key) if config.guidance is not None else None


def text_files(prepared: Prepared) -> list[Path]:
    """Return the files that hold the run's encoded prompts, and its null's under guidance."""
    from bench.engine.embeddings import null_file, prompts_file

    config, key = prepared.config, _conditioning_key(prepared)
    files = [prompts_file(key, prepared.prompts.texts, config.subtract_null)]
    return [*files, null_file(key)] if config.guidance is not None else files


def speed_key(prepared: Prepared) -> str:
    """Return all that decides a speed but the device, to remember the best batch size under."""
    config = prepared.config
    resolution = prepared.resolved.backbone_parameters.get("resolution")
    guided = "" if config.guidance is None else " guided"
    return f"{_backbone_key(prepared)} {resolution} {config.layout} {config.attention}{guided}"


def _backbone_key(prepared: Prepared) -> str:
    config, spec, weights = prepared.config, prepared.resolved.backbone, prepared.weights
    fingerprint, rounding = weights.fingerprint if weights else "", " tf32" if config.tf32 else ""
    return f"{spec.name} {spec.version} {fingerprint} {prepared.resolved.dtype}{rounding}"


def _conditioning_key(prepared: Prepared) -> str:
    """Return all that decides a conditioning but its text: some models are told the resolution."""
    spec, chosen = prepared.resolved.backbone, prepared.resolved.backbone_parameters
    changed = {n: v for n, v in chosen.items() if v != spec.parameters[n].default}
    return f"{_backbone_key(prepared)} {sorted(changed.items())}"
