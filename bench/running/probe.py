"""What a backbone in memory predicts when its run begins, compared where the run is repeated.

Its content is in the identity of the run; its code, and what hooks do to it, cannot be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bench.errors import UserError
from bench.running.model_run import check
from bench.running.prepared import Prepared, run_samples
from bench.running.scorers import kind_of
from bench.running.scorers.draws import encode_texts
from bench.store.documents import Manifest, Probe
from bench.store.folder import missing, read_manifest

PROBED_TEXTS = 2
PROBED_LEVELS = (0.25, 0.75)  # of the table
KEPT_ELEMENTS = 16  # of a latent or a prediction that are kept
# Of the predictions' size: what devices, batches and versions of libraries round differently.
TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}


def with_probe(prepared: Prepared) -> Prepared:
    """Return a run with a few of the backbone's predictions in its manifest.

    Raises:
        UserError: they are not those with which the stored run began.
    """
    if prepared.config.shard is not None:
        raise UserError(
            "shard= is for backbones that other processes can load, and this one is in memory. Save"
            " the pipeline with pipe.save_pretrained(FOLDER) and name the folder."
        )
    check(prepared)
    stored = _stored(prepared)
    earlier = None if stored is None else stored.probe
    sample = prepared.sample_ids[0] if earlier is None else earlier.sample
    probe = _probe(prepared, sample)
    difference = 0.0 if earlier is None else _difference(earlier, probe)
    if difference > (tolerance := TOLERANCES[prepared.resolved.dtype]):
        raise UserError(
            f"{prepared.folder}: this backbone's predictions differ from those with which the run"
            f" began by {difference:.2g} of their size ({tolerance:g} would be rounding). What it"
            " holds is the same; its code, its hooks or the libraries are not. fresh=True starts"
            " over."
        )
    manifest = prepared.manifest.model_copy(update={"probe": earlier or probe})
    return replace(prepared, described=manifest)


def _stored(prepared: Prepared) -> Manifest | None:
    if prepared.config.fresh or missing(prepared.folder, prepared.manifest, False) is None:
        return None
    return read_manifest(prepared.folder)


def _probe(prepared: Prepared, sample_id: str) -> Probe:
    import torch

    from bench.engine.denoiser import CheckedDenoiser
    from bench.engine.scoring import mixed, times
    from bench.engine.trees import mapped
    from bench.inputs.pixels import decode

    denoiser: Any = kind_of(prepared.resolved).make(prepared)
    assert isinstance(denoiser, CheckedDenoiser)
    sample = next(run_samples(prepared, [sample_id]))
    levels, count = denoiser.levels, min(PROBED_TEXTS, len(prepared.prompts.texts))
    level = np.repeat([int(share * len(levels)) for share in PROBED_LEVELS], count)
    with torch.inference_mode():
        latent = denoiser.encode_images([decode(sample.images[0])]).float()
        x_0 = latent.expand(len(level), *latent.shape[1:])
        generator = torch.Generator().manual_seed(0)
        eps = torch.randn(latent.shape, generator=generator).to(latent.device)
        alpha, sigma = (
            torch.from_numpy(column[level].astype(np.float32)).to(latent.device)
            for column in (levels.alpha, levels.sigma)
        )
        prompt = torch.arange(count).repeat(len(PROBED_LEVELS))
        encoded, _ = encode_texts(prepared, denoiser)
        conditioning = mapped(lambda leaf: leaf[prompt].to(denoiser.device), encoded)
        x_t = mixed(x_0, eps.expand_as(x_0), alpha, sigma)
        time = times(levels, level).to(denoiser.device)
        answers = denoiser.denoise(x_t, time, conditioning)
    return Probe(
        sample=sample_id, latent=_some(latent[0]), predictions=[_some(row) for row in answers]
    )


def _some(values: Any) -> list[float]:
    flat = values.float().flatten().cpu().numpy()
    chosen = flat[
        np.arange(min(KEPT_ELEMENTS, len(flat))) * len(flat) // min(KEPT_ELEMENTS, len(flat))
    ]
    return [float(f"{value:.6g}") for value in chosen]


def _difference(stored: Probe, probe: Probe) -> float:
    """Return the largest difference of a latent or a prediction, relative to its size."""
    pairs = [
        (stored.latent, probe.latent),
        *zip(stored.predictions, probe.predictions, strict=True),
    ]
    return max(
        float(np.linalg.norm(np.subtract(a, b)) / max(float(np.linalg.norm(a)), 1e-12))
        for a, b in pairs
    )
