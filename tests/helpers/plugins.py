"""Plugins laid out by hand: in a folder as if installed, or in this process alone."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from bench.contracts.hooks import hookimpl
from bench.discovery.finding import Plugin
from bench.discovery.loading import Plugins


def install(site: Path, distribution: str, source: str) -> Path:
    """Lay out an installed distribution: a module and its entry point. Return its dist-info."""
    module = distribution.replace("-", "_")
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bench]\n{distribution} = {module}\n")
    return info


def load_hooks(plugins: Plugins, name: str, *hooks: Callable[..., None]) -> Plugin:
    """Load functions named as hooks are, as the plugin `name` of a distribution `name`."""
    module = ModuleType(f"hooks_of_{name}")
    for hook in hooks:
        setattr(module, hook.__name__, hookimpl(hook))
    sys.modules[module.__name__] = module
    plugin = Plugin(name, name, "1.0", module.__name__)
    try:
        plugins.load(plugin)
    finally:
        del sys.modules[module.__name__]
    return plugin
