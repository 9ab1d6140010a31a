"""Every example of docs/testing.md is a test file that passes: its classes are collected here."""

import re
import sys
from types import ModuleType

from helpers.places import ROOT

import bench.testing

PAGE = (ROOT / "docs" / "testing.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def module_of(number: int, code: str) -> ModuleType:
    """Import an example, as pytest would if it were a file."""
    module = ModuleType(f"example_{number}_of_the_page")
    sys.modules[module.__name__] = module
    exec(compile(code, f"docs/testing.md, example {number}", "exec"), vars(module))
    return module


MODULES = [module_of(number, code) for number, code in enumerate(EXAMPLES, start=1)]
TESTS = {
    name: value
    for module in MODULES
    for name, value in vars(module).items()
    if name.startswith("Test")
}
globals().update(TESTS)


def test_there_is_an_example_of_every_contract() -> None:
    shown = [base.__name__ for test in TESTS.values() for base in test.__bases__]
    assert sorted(shown) == sorted(bench.testing.MODULES)
    for name in bench.testing.MODULES:
        assert f"| `{name}` |" in PAGE
