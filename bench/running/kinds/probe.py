"""The probe that recognises a backbone in memory when its run is resumed.

The identity of a run covers such a backbone's weights, but not its code or its hooks. So the
manifest stores a few predictions, which a resumed run must reproduce.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from bench.engine.direct import CheckedLikelihood
from bench.engine.scoring import mixed, times
from bench.engine.trees import mapped
from bench.errors import UserError
from bench.inputs.pixels import decode
from bench.machine.libraries import torch
from bench.running.content import PreparedRun
from bench.running.kinds.denoiser import encode_texts
from bench.running.parts.settings import check_mode
from bench.store.folder import missing_samples, read_manifest
from bench.store.formats.documents import Probe

PROBED_TEXTS = 2  # number of prompts
PROBED_LEVELS = (0.25, 0.75)  # noise levels, as fractions of the level table
KEPT_ELEMENTS = 16  # number of stored values per latent or prediction
# Largest relative differences due to rounding, across devices, batch sizes and library versions.
TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}


def with_probe(prepared: PreparedRun) -> PreparedRun:
    """Return the run with a probe in its manifest: a few of the backbone's predictions.

    Raises UserError if they differ from the stored run's probe, or the run is a shard.
    """
    check_mode(prepared.config, "memory", "A backbone in memory")
    prepared.check()
    folder, fresh = prepared.folder, prepared.config.fresh
    resumes = not fresh and missing_samples(folder, prepared.manifest, False) is not None
    earlier = read_manifest(folder).probe if resumes else None
    sample = prepared.sample_ids[0] if earlier is None else earlier.sample
    probe = _probe(prepared, sample)
    difference = 0.0 if earlier is None else _difference(earlier, probe)
    if difference > (tolerance := TOLERANCES[prepared.names.precision.dtype]):
        raise UserError(
            f"{prepared.folder}: this backbone's predictions differ from those at the start of the"
            f" run by a relative {difference:.2g} (rounding explains at most {tolerance:g}). Its"
            " weights are the same, but its code, its hooks or the libraries are not. fresh=True"
            " starts over."
        )
    manifest = prepared.manifest.model_copy(update={"probe": earlier or probe})
    return replace(prepared, manifest=manifest)


def _probe(prepared: PreparedRun, sample_id: str) -> Probe:
    denoiser = prepared.content.kind.make(prepared.content)
    texts = prepared.content.prompts.texts[:PROBED_TEXTS]
    sample, count = next(prepared.samples([sample_id])), len(texts)
    image = decode(sample.images[0])
    if isinstance(denoiser, CheckedLikelihood):
        errors = denoiser.evaluate([image] * count, texts, np.zeros(count, np.int64))
        return Probe(sample=sample_id, latent=[], predictions=[[float(e)] for e in errors])
    levels = denoiser.levels
    level = np.repeat([int(fraction * len(levels)) for fraction in PROBED_LEVELS], count)
    with torch.inference_mode():
        latent = denoiser.encode_images([image]).float()
        x_0 = latent.expand(len(level), *latent.shape[1:])
        generator = torch.Generator().manual_seed(0)
        eps = torch.randn(latent.shape, generator=generator).to(latent.device)
        alpha, sigma = (
            torch.from_numpy(column[level].astype(np.float32)).to(latent.device)
            for column in (levels.alpha, levels.sigma)
        )
        prompt = torch.arange(count).repeat(len(PROBED_LEVELS))
        encoded = encode_texts(prepared.content, denoiser)
        conditioning = mapped(lambda leaf: leaf[prompt].to(denoiser.device), encoded)
        x_t = mixed(x_0, eps.expand_as(x_0), alpha, sigma)
        time = times(levels, level).to(denoiser.device)
        predictions = denoiser.denoise(x_t, time, conditioning)
    return Probe(
        sample=sample_id,
        latent=_kept(latent[0]),
        predictions=[_kept(row) for row in predictions],
    )


def _kept(values: Any) -> list[float]:
    """Return at most `KEPT_ELEMENTS` evenly spaced elements, rounded to six digits."""
    flat = values.float().flatten().cpu().numpy()
    count = min(KEPT_ELEMENTS, len(flat))
    return [float(f"{value:.6g}") for value in flat[np.arange(count) * len(flat) // count]]


def _difference(stored: Probe, probe: Probe) -> float:
    """Return the largest relative difference (Euclidean norm) of the latent or a prediction."""
    pairs = [
        (stored.latent, probe.latent),
        *zip(stored.predictions, probe.predictions, strict=True),
    ]
    return max(
        float(np.linalg.norm(np.subtract(a, b)) / max(float(np.linalg.norm(a)), 1e-12))
        for a, b in pairs
    )
