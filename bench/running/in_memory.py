"""A backbone in memory: taken from a caller, and compared where its run is repeated.

Its content is in the identity of the run; its code, and what hooks do to it, cannot be. So the
manifest keeps some of what it predicts when the run begins.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from bench.contracts.specs import BackboneSpec
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.errors import UserError
from bench.inputs.weights import resolve as resolve_weights
from bench.machine.environment import pick_device
from bench.running.model_run import check
from bench.running.parts.scorer import find_backbone, resolve_dtype
from bench.running.prepared import Prepared, run_samples
from bench.running.scorers import kind_of
from bench.running.scorers.draws import encode_texts
from bench.running.settings import RunConfig
from bench.store.documents import Manifest, Probe
from bench.store.folder import missing_samples, read_manifest

# Backbone → the settings that it was made from: they are part of a run's identity.
_LOADED: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
NAMED_SETTINGS = ("normalize", "resolution", "revision", "layout", "attention", "compile", "lora")


def load_named(name: str, weights: str | None, device: str | None, dtype: str | None) -> Any:
    """Return a backbone by its name or folder."""
    config = RunConfig(dataset="-", backbone=name, weights=weights)
    resolved = find_backbone(config)
    spec, source = resolved.spec, resolved.weights or resolved.spec.weights
    device, dtype = pick_device(device), resolve_dtype(dtype, spec, device)
    folder = resolve_weights(source, spec.revision) if source else None
    parameters = spec.resolve_parameters({})
    backbone = make(spec, folder, device=device, dtype=dtype, **parameters)
    _LOADED[backbone] = {"backbone": name, "weights": weights, "device": device, "dtype": dtype}
    return backbone


def take_object(thing: Any, **parameters: Any) -> Any:
    """Return the backbone that a plugin makes of an object, such as a pipeline of diffusers.

    Raises:
        UserError: no plugin takes such an object.
    """
    spec = _spec_of(thing)
    if spec is None:
        raise UserError(
            f"backbone={type(thing).__name__}(…): hand over a pipeline of diffusers, or what"
            " bench.load_backbone(NAME) returned, so that the run can say what scored it."
        )
    backbone = make(spec, thing, **parameters)
    _LOADED[backbone] = {"backbone": spec.name, "weights": backbone.label, **backbone.settings}
    return backbone


def _spec_of(thing: Any) -> BackboneSpec | None:
    kinds = {f"{k.__module__.partition('.')[0]}.{k.__name__}" for k in type(thing).__mro__}
    specs = (spec for spec in load_plugins().backbones if kinds.intersection(spec.objects))
    return next(specs, None)


def with_loaded(backbone: Any, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return a backbone that was handed over, and a run's settings with those of its making.

    Raises:
        UserError: they contradict each other, or it is no backbone.
    """
    try:
        made = _LOADED.get(backbone)
    except TypeError:  # nothing that a weak reference can be made to
        made = None
    if made is None:
        backbone = take_object(backbone)
        made = _LOADED[backbone]
    for name in NAMED_SETTINGS:
        if settings.get(name):
            raise UserError(f"{name}= goes with a backbone's name, not with one that is loaded.")
    for name in ("weights", "device", "dtype"):
        if settings.get(name) not in (None, made[name]):
            raise UserError(f"The backbone was loaded with {name}={made[name]!r}.")
    return backbone, {**settings, **made}


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
    if difference > (tolerance := TOLERANCES[prepared.dtype]):
        raise UserError(
            f"{prepared.folder}: this backbone's predictions differ from those with which the run"
            f" began by {difference:.2g} of their size ({tolerance:g} would be rounding). What it"
            " holds is the same; its code, its hooks or the libraries are not. fresh=True starts"
            " over."
        )
    manifest = prepared.manifest.model_copy(update={"probe": earlier or probe})
    return replace(prepared, described=manifest)


def _stored(prepared: Prepared) -> Manifest | None:
    if prepared.config.fresh or missing_samples(prepared.folder, prepared.manifest, False) is None:
        return None
    return read_manifest(prepared.folder)


def _probe(prepared: Prepared, sample_id: str) -> Probe:
    import torch

    from bench.engine.denoiser import CheckedDenoiser
    from bench.engine.scoring import mixed, times
    from bench.engine.trees import mapped
    from bench.inputs.pixels import decode

    denoiser: Any = kind_of(prepared).make(prepared)
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
        encoded = encode_texts(prepared, denoiser)
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
