"""Names of PEFT that it does not document, seen in 0.13 to 0.21."""

import copy
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple


class LayerState(NamedTuple):
    """An adapter in one layer."""

    path: str
    adapter: str
    scale: float | None  # None if its kind has none
    state: str
    """One of "active", "merged" (into the weights), "off" and "merged, off".

    "merged, off" is merged although disabled: PEFT unmerges it at the layer's next forward pass.
    """


# Attributes of a layer with adapters that its `states` cover.
COVERED = ("scaling", "merged_adapters", "_active_adapter", "_disable_adapters", "training")


def is_adapter_layer(module: Any) -> bool:
    """Return whether a module is a layer around another, with adapters."""
    return hasattr(module, "base_layer") and hasattr(module, "adapter_layer_names")


def adapters_of(layer: Any) -> set[str]:
    """Return the names of the adapters in a layer."""
    return {name for part in layer.adapter_layer_names for name in getattr(layer, part, ())}


def states(module: Any) -> Iterator[LayerState]:
    """Yield the state of each adapter in each layer of a module."""
    for path, layer in module.named_modules():
        if is_adapter_layer(layer):
            scaling, disabled = getattr(layer, "scaling", {}), layer.disable_adapters
            for name in sorted(adapters_of(layer)):
                state = "active" if name in layer.active_adapters and not disabled else "off"
                if name in layer.merged_adapters:
                    state = "merged, off" if disabled else "merged"
                scale = float(scaling[name]) if name in scaling else None
                yield LayerState(path, name, scale, state)


def attributes(layer: Any) -> dict[str, Any]:
    """Return the attributes of a layer with adapters without what its `states` cover.

    A deleted adapter leaves entries behind in dicts by adapter, which are left out. Every plain
    dict is filtered by the names of the adapters. Torch's own dicts (submodules, parameters, hooks)
    have no such keys, and come out empty.
    """
    adapters = adapters_of(layer)
    values = {name: value for name, value in vars(layer).items() if name not in COVERED}
    for name, value in values.items():
        if type(value) is dict:
            values[name] = {key: value[key] for key in value.keys() & adapters}
    return values


def inject(module: Any, original: Any) -> None:
    """Add adapters without weights to a fresh copy of a module, as the original has them."""
    if configs := getattr(original, "peft_config", None):
        from peft import inject_adapter_in_model

        for name, config in configs.items():
            inject_adapter_in_model(copy.deepcopy(config), module, name, low_cpu_mem_usage=True)


def is_off(path: str, off: Collection[tuple[str, str]]) -> bool:
    """Return whether the tensor at `path` belongs to a LoRA that is off.

    `off` has the path of the layer and the adapter of each LoRA that is off.
    """
    layer, _, rest = path.partition(".lora_")  # of LAYER.lora_A.ADAPTER.weight
    if not rest:
        return False
    _, adapter, *_ = rest.split(".")
    return (layer, adapter) in off
