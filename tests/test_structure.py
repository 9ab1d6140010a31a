"""The shape of the code: no import circles, one name for one thing, one place for each question."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain

from helpers.places import ROOT

TEST_FILES = sorted((ROOT / "tests").rglob("test_*.py"))


class Nodes(tuple[ast.AST, ...]):
    """All nodes of a module, the module itself first."""

    @property
    def body(self) -> list[ast.stmt]:
        """The statements of the module."""
        module = self[0]
        assert isinstance(module, ast.Module)
        return module.body


def parsed(text: str) -> Nodes:
    """Return the nodes of a source text."""
    return Nodes(ast.walk(ast.parse(text)))


@cache
def modules() -> dict[str, Nodes]:
    """Return path → nodes of every module of bench/ and plugins/."""
    files = chain.from_iterable((ROOT / room).rglob("*.py") for room in ("bench", "plugins"))
    return {f.relative_to(ROOT).as_posix(): parsed(f.read_text("utf-8")) for f in files}


def module_name(path: str) -> str:
    """Return the name by which the module of a file is imported."""
    name = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    return name.removeprefix("plugins.")


def imports(nodes: Nodes, known: set[str]) -> set[str]:
    """Return the modules that a module names in imports, also those for annotations alone."""
    named = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= (whole & known) or {node.module}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
    return named & known


def test_no_modules_import_each_other_in_a_circle() -> None:
    sources = {module_name(path): nodes for path, nodes in modules().items()}
    graph = {name: imports(nodes, set(sources)) - {name} for name, nodes in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def public_names(nodes: Nodes) -> Iterator[str]:
    """Yield the names of a module's public classes and constants."""
    for node in nodes.body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            names = [name for name in names if name.isupper() and len(name) > 1]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def test_classes_and_constants_have_names_that_occur_once() -> None:
    places = defaultdict(list)
    for path, nodes in modules().items():
        for name in public_names(nodes):
            places[name].append(path)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


# Of the folder of a run, only an object that holds its lock can write files: `LockedFolder`, which
# `locked` alone makes, or `RunFolder`, which has one.
PARTS = {"write_cells", "write_first_order", "write_draws", "copy_part", "copy_errors"}


def calls(nodes: Nodes) -> Iterator[str]:
    """Yield the last name of every function that a module calls."""
    for node in nodes:
        if isinstance(node, ast.Call):
            called = node.func
            yield str(called.id if isinstance(called, ast.Name) else getattr(called, "attr", ""))


def test_the_folder_of_a_run_is_written_by_the_holder_of_its_lock() -> None:
    sources = {p: set(calls(nodes)) for p, nodes in modules().items() if p.startswith("bench/")}
    makers = {path for path, names in sources.items() if names & {"LockedFolder", "Journal"}}
    assert makers == {"bench/store/locking.py"}
    of_parts = {path for path, names in sources.items() if names & PARTS}
    assert of_parts <= {f"bench/store/{n}.py" for n in ("writing", "merging", "formats/cells")}


# How a library reads weights → the functions that ask it to. They check what was read.
LOADERS = {
    "from_pretrained": ["from_library"],
    "from_single_file": ["_from_file"],
    "load_lora_weights": ["add_loras"],
}


def test_a_library_reads_weights_in_one_place() -> None:
    places: dict[str, list[str]] = {name: [] for name in LOADERS}
    for nodes in modules().values():
        for function in (node for node in nodes if isinstance(node, ast.FunctionDef)):
            for name in LOADERS.keys() & {*calls(Nodes(ast.walk(function)))}:
                places[name].append(function.name)
    assert places == LOADERS


LIBRARIES = "bench/machine/libraries/"
# Documented, in spite of their underscore.
DOCUMENTED = {"_replace", "_exit", "_getframe", "_fields"}


def _private(nodes: Nodes) -> Iterator[str]:
    """Yield the names with one underscore that a module reads of objects, or imports."""
    for node in nodes:
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()):
                yield name
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
                yield name
            case ast.ImportFrom(module=str(module), names=aliases):
                if not module.startswith(("bench", "_")):
                    yield from module.split(".")
                yield from (alias.name for alias in aliases)


def test_undocumented_names_of_libraries_stand_in_one_module_per_library() -> None:
    own = {name for nodes in modules().values() for name in _defined(nodes)}
    for path, nodes in modules().items():
        names = {n for n in _private(nodes) if n.startswith("_") and not n.startswith("__")}
        if not path.startswith(LIBRARIES):
            assert names <= own | DOCUMENTED, path


def _defined(nodes: Nodes) -> Iterator[str]:
    for node in nodes:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                yield name


def test_the_first_line_of_each_test_file_says_what_it_proves() -> None:
    first = {file: file.read_text("utf-8").partition("\n")[0] for file in TEST_FILES}
    short = [file.name for file, line in first.items() if not re.match(r'"""[\w`].{29,}', line)]
    assert short == []
