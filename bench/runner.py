"""A run from its settings to its summary.

Everything that can be wrong is checked before weights are read: names, data, prompts, the store.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench import identity as ids
from bench.analysis.metrics import summarize
from bench.config import RunConfig
from bench.data import Split, limited, load_split
from bench.draws import parse_plan, read_noise
from bench.engine.decided import Decided, Engine
from bench.environment import environment, peak_memory, pick_device
from bench.errors import BenchWarning, UserError
from bench.plugins import load_plugins
from bench.prompting import Prompts, from_file, from_template
from bench.resolve import Resolved, resolve
from bench.speed import remember_speed
from bench.store.decisions import read_decisions
from bench.store.folder import MANIFEST_FORMAT, RunFolder, completed
from bench.store.records import make_record
from bench.strategy import Problem
from bench.weights import Weights
from bench.weights import resolve as resolve_weights


def run(config: RunConfig) -> dict[str, Any]:
    """Run, or go on with, the run that `config` describes.

    Returns:
        The object behind `--json`.

    Raises:
        UserError: something is wrong that the user can mend; nothing was scored.
        KeyboardInterrupt: the same call goes on where this one stopped.
    """
    started = time.perf_counter()
    resolved = resolve(config)
    config = resolved.config
    split = load_split(resolved.dataset, config.split, config.data_dir)
    prompts = make_prompts(resolved, split.classes)
    weights = find_weights(resolved)
    manifest = make_manifest(resolved, split, prompts, weights)
    path = Path(config.results, manifest["run_id"])
    if not config.fresh and (earlier := completed(path, manifest, config.save_errors)):
        return {**earlier, "results_dir": str(path.resolve()), "resumed": "complete"}
    check_token_lengths(resolved, weights, prompts)
    check_linearisable(resolved)
    with RunFolder(path, manifest, config.fresh) as folder:
        outstanding = folder.outstanding(config.save_errors)
        engine = make_engine(resolved, prompts, weights)
        events = load_plugins().manager.hook
        total = len(folder.manifest["samples"])
        _tell(events.run_started, manifest=manifest, done=total - len(outstanding), total=total)
        for decided, seconds in _timed(engine.score(split.samples(outstanding), resolved.strategy)):
            record = make_record(decided, seconds)
            folder.append(record, decided if config.save_errors else None, engine.problem.timesteps)
            _tell(events.sample_scored, record=record)
        summary = summarize(
            manifest,
            read_decisions(path, folder.manifest, top=True),
            total_seconds=time.perf_counter() - started,
            peak_memory=peak_memory(),
        )
        summary["results_dir"] = str(path.resolve())
        folder.finish(summary)
        _remember_speed(resolved, engine, summary)
        _tell(events.run_finished, summary=summary)
    return summary


def make_prompts(resolved: Resolved, classes: tuple[str, ...]) -> Prompts:
    """Return the run's prompts, from the file, the template or the dataset's template."""
    config, spec = resolved.config, resolved.dataset
    if config.prompts:
        return from_file(Path(config.prompts), classes)
    return from_template(config.template or spec.template, classes, spec.phrases)


def find_weights(resolved: Resolved) -> Weights | None:
    """Return the backbone's weights, located but not read; None where it needs none."""
    weights = resolved.config.weights or resolved.backbone.weights
    if weights is None:
        return None
    return resolve_weights(weights, resolved.config.revision or resolved.backbone.revision)


def check_token_lengths(resolved: Resolved, weights: Weights | None, prompts: Prompts) -> None:
    """Refuse prompts that the tokenizer would cut, where the backbone can count tokens."""
    count = getattr(resolved.backbone.load(), "token_counts", None)
    if count is None:
        return
    counts, most = count(weights, prompts.texts)
    for source, text, n in zip(prompts.sources, prompts.texts, counts, strict=True):
        if n > most:
            raise UserError(
                f"{source}: the prompt has {n} tokens and would be cut at {most}: {text!r}."
            )


def check_linearisable(resolved: Resolved) -> None:
    """Refuse a strategy that linearises with a backbone that cannot."""
    if linearises(resolved) and not can_linearise(resolved):
        name = resolved.strategy_spec.name
        raise UserError(
            f"Strategy {name!r} needs gradients to the text conditioning, and backbone"
            f" {resolved.backbone_name!r} does not offer them. `race` decides without."
        )


def linearises(resolved: Resolved) -> bool:
    """Return whether the strategy asks for first-order errors."""
    return bool(getattr(resolved.strategy, "linearises", False))


def can_linearise(resolved: Resolved) -> bool:
    """Return whether the backbone offers gradients to its conditioning."""
    return bool(getattr(resolved.backbone.load(), "can_linearise", False))


def make_manifest(
    resolved: Resolved, split: Split, prompts: Prompts, weights: Weights | None
) -> dict[str, Any]:
    """Return what the run is: identity, settings, samples, and where it was made."""
    config = resolved.config
    scoring: dict[str, Any] = {}
    if resolved.backbone.scorer == "denoiser":
        scoring = {
            "loss": config.loss,
            "space": config.space,
            "draw_plan": config.plan,
            "noise": f"seed {config.seed}" if config.noise is None else _noise_hash(resolved),
        }
    strategy = {
        "name": resolved.strategy_spec.name,
        "version": resolved.strategy_spec.version,
        "params": dict(resolved.strategy_parameters),
    }
    identity = {
        "version": ids.IDENTITY_VERSION,
        "dataset": {
            "name": resolved.dataset.name,
            "version": split.version,
            "split": split.split,
            "fingerprint": split.fingerprint,
        },
        "prompts": ids.digest({"texts": prompts.texts, "classes": prompts.class_of_prompt}),
        "backbone": {
            "name": resolved.backbone.name,
            "version": resolved.backbone.version,
            "weights": weights.fingerprint if weights else None,
            "dtype": config.dtype,
            "parameters": dict(resolved.backbone_parameters),
            **_rounding(config),
        },
        "scoring": scoring,
        "strategy": strategy,
        "seed": config.seed,
    }
    return {
        "format": MANIFEST_FORMAT,
        "run_id": ids.run_id(
            split.name, resolved.backbone_name, resolved.strategy_spec.name, identity
        ),
        "identity": identity,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config.model_dump(),
        "dataset": {
            "name": split.name,
            "version": split.version,
            "split": split.split,
            "n_total": len(split.sample_ids),
        },
        "backbone": {
            "name": resolved.backbone_name,
            "version": resolved.backbone.version,
            "weights": weights.location if weights else None,
            "revision": weights.revision if weights else None,
            "dtype": config.dtype,
            "trained_on": resolved.trained_on,
        },
        "strategy": strategy,
        "classes": list(split.classes),
        "prompts": [list(row) for row in zip(prompts.texts, prompts.class_of_prompt, strict=True)],
        "samples": limited(split.sample_ids, split.labels, config.limit),
        "environment": environment(),
    }


def make_engine(
    resolved: Resolved, prompts: Prompts, weights: Weights | None, backbone: Any = None
) -> Engine:
    """Make the engine that fits the backbone, which is loaded where none is given."""
    config, spec = resolved.config, resolved.backbone
    backbone = backbone or make_backbone(resolved, weights)
    class_of_prompt = np.array(prompts.class_of_prompt)
    if spec.scorer == "classifier":
        from bench.engine.classifying import ClassifyingEngine

        one_draw = Problem(class_of_prompt, np.zeros(1, np.int64), np.ones(1), config.seed)
        return ClassifyingEngine(backbone, prompts.texts, one_draw, _chosen(config) or 16)

    from bench.engine.acceleration import compile_network
    from bench.engine.batching import settle_batch_size
    from bench.engine.denoising import DenoisingEngine
    from bench.engine.embeddings import embed_prompts
    from bench.engine.scoring import coefficients

    n_draws = resolved.strategy_parameters["draws"]
    plan = parse_plan(config.plan)
    timesteps = plan.timesteps(n_draws, len(backbone.alphas_cumprod))
    shape = tuple(backbone.latent_shape)
    noise = (
        read_noise(Path(config.noise), n_draws, shape)
        if config.noise
        else plan.noise(config.seed, n_draws, shape)
    )
    conditioning = embed_prompts(backbone, _backbone_key(resolved, weights), prompts.texts)
    engine = DenoisingEngine(
        backbone,
        conditioning,
        Problem(class_of_prompt, timesteps, np.ones(n_draws), config.seed, can_linearise(resolved)),
        coefficients(
            backbone.alphas_cumprod,
            timesteps,
            backbone.prediction_type,
            config.space,
            backbone.device,
        ),
        noise,
        config.loss,
        _chosen(config) or default_batch_size(backbone.device.type, shape),
    )
    if config.batch_size == "auto":
        key = speed_key(resolved, weights)
        settle_batch_size(engine, key)
        if linearises(resolved):
            settle_batch_size(engine.linear, f"{key} linearised")
    if config.compile:
        compile_network(backbone)
        engine.one_shape = True
    return engine


def make_backbone(resolved: Resolved, weights: Weights | None) -> Any:
    """Load the backbone and have its network run as the settings say."""
    config, spec = resolved.config, resolved.backbone
    device = pick_device(config.device)
    backbone = spec.load()(
        weights, device=device, dtype=config.dtype, **resolved.backbone_parameters
    )
    if spec.scorer == "denoiser":
        from bench.engine.acceleration import accelerate, set_precision

        set_precision(backbone.device, config.tf32)
        accelerate(backbone, config)
    return backbone


def _backbone_key(resolved: Resolved, weights: Weights | None) -> str:
    spec, fingerprint = resolved.backbone, weights.fingerprint if weights else ""
    rounding = " tf32" if resolved.config.tf32 else ""
    return f"{spec.name} {spec.version} {fingerprint} {resolved.config.dtype}{rounding}"


def speed_key(resolved: Resolved, weights: Weights | None) -> str:
    """Return all that decides a speed but the device, to remember the best batch size under."""
    config, resolution = resolved.config, resolved.backbone_parameters.get("resolution")
    return f"{_backbone_key(resolved, weights)} {resolution} {config.layout} {config.attention}"


def _chosen(config: RunConfig) -> int | None:
    return None if config.batch_size == "auto" else config.batch_size


def _rounding(config: RunConfig) -> dict[str, Any]:
    """Return the switches that enter the identity.

    In float32 the layout, the kernel and compilation move the last digits, as the batch size does,
    and no decision; in half precision they round at other places and enter it. Only what differs
    from the default is there, so that a new switch leaves the runs made before it as they are.
    """
    switches = ["tf32"] if config.dtype == "float32" else ["tf32", "compile", "layout", "attention"]
    fields = RunConfig.model_fields
    return {
        name: value for name in switches if (value := getattr(config, name)) != fields[name].default
    }


def default_batch_size(device: str, latent_shape: tuple[int, ...]) -> int:
    """Return the cells of a batch: enough to fill the device, and little to throw away at the end.

    64 for small latents; for 64×64 ones (512 pixels) 4 on a CPU, where more is no faster, and 32
    on an accelerator, the reference implementation's.
    """
    most = 16_384 if device == "cpu" else 131_072  # latent pixels a batch
    return max(1, min(64, most // (latent_shape[-2] * latent_shape[-1])))


def _noise_hash(resolved: Resolved) -> str:
    bank = read_noise(Path(str(resolved.config.noise)), resolved.strategy_parameters["draws"])
    return f"sha256 {hashlib.sha256(bank.tobytes()).hexdigest()}"


def _remember_speed(resolved: Resolved, engine: Engine, summary: dict[str, Any]) -> None:
    cost = summary["cost"]
    if engine.device and cost["seconds"] > 1:
        speed = cost["evaluation_equivalents"] / cost["seconds"]
        remember_speed(resolved.backbone_name, engine.device, resolved.config.dtype, speed)


def _timed(decisions: Iterator[Decided]) -> Iterator[tuple[Decided, float]]:
    """Yield each decision with the seconds since the one before it, or since scoring began."""
    last = time.perf_counter()
    for decided in decisions:
        now = time.perf_counter()
        yield decided, now - last
        last = now


def _tell(hook: Callable[..., Any], **event: Any) -> None:
    """Tell the plugins; one that fails to listen does not end the run."""
    try:
        hook(**event)
    except Exception as error:
        message = f"A plugin failed to handle a run event: {error!r}"
        warnings.warn(message, BenchWarning, stacklevel=2)
