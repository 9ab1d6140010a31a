"""The modules beside the documents, which mkdocs calls: they are no package."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from helpers.places import ROOT

DOCS = ROOT / "docs"


def hook(name: str) -> ModuleType:
    """Return a module of `docs/` as mkdocs imports it: those beside it can be imported."""
    sys.path.insert(0, str(DOCS))
    try:
        spec = spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
        assert spec and spec.loader
        module = sys.modules[f"docs_{name}"] = module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DOCS))
    return module
