"""Download a backbone's weights for later use without a network."""

from __future__ import annotations

from bench.contracts.backbone import Backbone
from bench.discovery import backbones
from bench.discovery.targets import load_target, offers
from bench.errors import AbsentError
from bench.inputs.weights import HASHED_SUFFIXES, resolve
from bench.machine.hub import advise_licence
from bench.running.parts.scorer import INDEX, find_backbone
from bench.running.settings import RunConfig
from bench.store.fields import Document


class Fetched(Document):
    """A backbone whose weights are on this machine."""

    name: str
    weights: str | None  # Hub id or folder; None for a backbone without weights
    revision: str | None  # commit on the Hub
    licence: str | None
    folder: str | None  # folder of the weights


def fetch(name: str, revision: str | None = None, dtype: str | None = None) -> Fetched:
    """Download the files that a backbone reads, and check them as before a run (UserError).

    `name` may be a Hub id, and `dtype` selects among several stored precisions. Raises AbsentError
    if the Hub refuses; the message names the page of a licence to accept.
    """
    config = RunConfig(dataset="-", backbone=name, revision=revision)
    backbone = find_backbone(config)
    spec, source = backbone.spec, backbone.weights or backbone.spec.weights
    if source is None:
        return Fetched(name=name, weights=None, revision=None, licence=spec.licence, folder=None)
    try:
        weights = resolve(source, revision or spec.revision)
        if offers(load_target(spec), Backbone.check_weights):
            weights.find(INDEX)  # identifies the family; also marks the repository as cached
            parameters = spec.resolve_parameters({})
            backbones.check_weights(spec, weights, dtype=dtype or spec.dtype, **parameters)
        elif weights.revision is not None:
            for file in weights.listing or ():
                if file.endswith(tuple(HASHED_SUFFIXES)):
                    weights.find(file)
    except AbsentError as error:
        if spec.gated and not backbone.weights and advise_licence(source) not in str(error):
            raise AbsentError(f"{error}\n{advise_licence(source, spec.licence)}") from None
        raise
    return Fetched(
        name=name,
        weights=weights.location,
        revision=weights.revision,
        licence=spec.licence,
        folder=str(weights.root),
    )
