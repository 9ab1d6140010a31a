"""The facts of a run (scores, cost, images, description), which all tables and pages show."""

from bench.contracts.metric_spec import MetricSpec
from bench.contracts.parameters import Parameters
from bench.contracts.specs import provenance
from bench.discovery.queries import metric_specs, non_default_params
from bench.reports.facts import Fact, assignments, metric_fact, percent_text, template_text
from bench.reports.run_view import RunView
from bench.stats.metrics.comparison import OF_BACKBONE, SHARED, run_settings

# Settings that rows have as fields, or that another setting implies.
IN_FIELDS = (
    *("identity version", "dataset", "version", "split", "data", "decoding", "prompts", "backbone"),
    *("backbone version", "weights", "strategy", "strategy version", "made"),
)
FIRST_SETTINGS = ("seed", "loss", "space", "plan", "dtype")  # settings that tables show first


def scores(run: RunView) -> list[Fact]:
    """Return the accuracy or text score, whose interval is valid however the run ended, and others.

    The others are the image and group score, a requested metric and the worst group's accuracy.
    """
    metrics, items, specs = run.summary.metrics, run.manifest.items, metric_specs()
    chance = 1 / len(run.manifest.classes) if items is None else items.chance
    name = "accuracy" if metrics.text_score is None else "text score"
    ends, notes = metrics.accuracy_ci95, [_guessing(chance)]
    if run.stop is not None:
        fixed = percent_text(metrics.accuracy, ends)
        notes.append(f"valid at any number of images; of a fixed one: {fixed}")
        ends = run.stop.interval
    if metrics.about_images is not None:
        notes.append(f"over the {metrics.about_images:,} images that items are about")
    rows = [Fact(name, metrics.accuracy, "share", ends, "; ".join(filter(None, notes)))]
    for kind in ("image", "group"):
        share, ends, chance = (
            getattr(metrics, f"{kind}_{what}") for what in ("score", "score_ci95", "chance")
        )
        if share is not None:
            rows.append(Fact(f"{kind} score", share, "share", ends, _guessing(chance)))
    rows += _recalls(run)
    if run.measured is not None:
        value, spec = run.measured.value, specs[run.measured.metric]
        note = run.measured.caveat or ""
        rows.append(metric_fact(spec, value, run.measured.ci95, note))
    if (worst := metrics.worst_group) is not None:
        alone = percent_text(worst.accuracy, worst.accuracy_ci95)
        note = f"{worst.group} ({worst.n:,}), the lowest of {worst.groups}; alone {alone}"
        rows.append(Fact("worst group", worst.accuracy, "share", worst.lowest_ci95, note))
    return rows


def _recalls(run: RunView) -> list[Fact]:
    """Return the recalls of items, which of them are undefined, and the limit of a shortlist.

    Up to the length of the shortlist, a recall cannot exceed the share of items with a right answer
    among their candidates; from there on, it is that of the run that the candidates are from.
    """
    values, shortlist = run.summary.metrics.summary_metrics(), run.manifest.identity.candidates
    specs, shown_below = metric_specs(), run.measured and run.measured.metric
    recalls = {name: v for name, v in values.items() if "ranks" in specs[name].needs}
    rows = [
        metric_fact(specs[name], value)
        for name, value in recalls.items()
        if value is not None and name != shown_below
    ]
    undefined = [specs[name].words for name, value in recalls.items() if value is None]
    if undefined:
        why = "none: an item has too few answers, or answers without a rank were eliminated"
        rows.append(Fact(", ".join(undefined), why))
    if run.manifest.items is not None and shortlist is not None:
        note = f"the limit of recalls up to {shortlist.top}; others are those of the first run"
        rows.append(metric_fact(specs["candidate_recall"], values["candidate_recall"], note=note))
    return rows


def averages(run: RunView) -> list[Fact]:
    """Return the summary's metrics other than the accuracy; none if the run is of items.

    A metric that equals an earlier one by definition is left out, and so is the top-5 accuracy of
    fewer than ten classes, which is nearly 1.
    """
    values = run.summary.metrics.summary_metrics() if run.manifest.items is None else {}
    distinct: dict[object, MetricSpec] = {}
    for name, value in values.items():
        spec = metric_specs()[name]
        if value is not None and ("top5" not in spec.needs or len(run.classes) >= 10):
            definition = (spec.ratio, spec.by_support) if spec.ratio else name
            distinct.setdefault(definition, spec)
    return [metric_fact(m, values[m.name]) for m in distinct.values() if m.name != "accuracy"]


def cost_fact(run: RunView) -> Fact:
    """Return the cost per image: passes of a classifier, else evaluation equivalents."""
    unit = "passes" if run.manifest.classifier else "evaluations"
    value = run.summary.cost.per_image(run.manifest.classifier)
    return Fact(f"cost, {unit} per image", value, "cost")


def images_fact(run: RunView) -> Fact:
    """Return the number of decided images or items."""
    items, total = run.manifest.items, run.manifest.dataset.n_total
    if items is None:
        return Fact("images", f"{run.n:,} of {total:,}", note=f"{len(run.classes):,} classes")
    images = "one image" if items.images == 1 else f"{items.images} images"
    texts = "one text" if items.texts == 1 else f"up to {items.texts} texts"
    note = f"{images} and {texts} each, {items.pool:,} texts in all"
    return Fact("items", f"{run.n:,} of {total:,}", note=note)


def description(run: RunView) -> list[Fact]:
    """Return data, model, strategy and settings."""
    manifest, identity = run.manifest, run.manifest.identity
    data, backbone, prompts = manifest.dataset, manifest.backbone, manifest.prompts
    precision = identity.backbone.precision
    more = f" of {len(prompts):,}" if len(prompts) > 1 else ""
    strategy = f"{manifest.strategy.name} {assignments(manifest.strategy.params)}".strip()
    facts = {
        "dataset": f"{data.name}/{data.split}",
        "backbone": f"{backbone.name}, {provenance(backbone.trained_on)}, {precision}",
        "LoRA": backbone.adapters,
        "against float32": manifest.rounding and manifest.rounding.in_words,
        "strategy": strategy,
        "seed": str(identity.seed),
        "template": template_text(run.template),
        "first prompt": f"“{prompts[0][0]}”{more}" if prompts else None,
        "blind control": identity.control,
        "corruption": identity.corrupt,
        "replayed from": manifest.replayed_from,
        "note": manifest.config.labels,
        "started": f"{manifest.created[:16].replace('T', ' ')} UTC",
    }
    return [Fact(name, text) for name, text in facts.items() if text]


def errata(run: RunView) -> list[Fact]:
    """Return the errata that concern the run, as sentences."""
    return [Fact(touch.mark or "erratum", touch.sentence) for touch in run.errata]


def settings_of(run: RunView) -> Parameters:
    """Return option → value of the settings that affect the results, except the strategy's.

    The prompts are represented by the template that the user set, or else by the first prompt,
    unless the run learned its classes from images.
    """
    manifest, every = run.manifest, run_settings(run.manifest)
    settings: Parameters = {"template": run.template} if run.template else {}
    if not settings and manifest.prompts and not manifest.identity.learned_from:
        settings = {"prompt": manifest.prompts[0][0]}
    settings |= {name: every.pop(name) for name in FIRST_SETTINGS if name in every}
    left_out = {*IN_FIELDS, *manifest.strategy.params}
    others = {k: v for k, v in every.items() if k not in left_out and "." not in k}
    if others.get("noise") == SHARED:
        del others["noise"]
    return settings | others | dict([run.label] if run.label else [])


def without_defaults(backbone: str, settings: Parameters) -> Parameters:
    """Return settings without the parameters of a backbone that have their default."""
    return {
        name: value
        for name, value in settings.items()
        if name in FIRST_SETTINGS
        or non_default_params("backbones", backbone, {name.removeprefix(OF_BACKBONE): value})
    }


def _guessing(chance: float | None) -> str:
    return "" if chance is None else f"guessing: {percent_text(chance)}"
