"""Count where the name of a setting stands as a text outside its declaration, per module.

A place is a string in bench/running, bench/cli, bench/recordings or bench/api.py that is the name,
or an option in a message. Attributes such as `config.seed` are uses, and not counted.

    python tools/setting_names.py [COMMIT]
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

from bench.running.parts.declaration import option
from bench.running.parts.settings import SETTINGS

ROOMS = ("bench/running/", "bench/cli/", "bench/recordings/", "bench/api.py")
DECLARING = ("Chapter", "BaseModel")  # bases of the classes that declare settings


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _texts(source: str) -> Iterator[str]:
    """Yield the strings of a module, except docstrings and declarations of settings."""
    nodes = list(ast.walk(ast.parse(source)))
    docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.ClassDef) and {*map(ast.unparse, node.bases)} & {*DECLARING}:
            docs |= {id(part) for part in ast.walk(node)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def main() -> None:
    """Print the counts of a commit, HEAD by default."""
    commit = sys.argv[1] if len(sys.argv) > 1 else "HEAD"
    options = {option(name) for name in SETTINGS}
    keys, messages = Counter[str](), Counter[str]()
    for path in _git("ls-tree", "-r", "--name-only", commit, "bench").split():
        source = _git("show", f"{commit}:{path}") if path.endswith(".py") else ""
        if path.startswith(ROOMS):
            for text in _texts(source):
                keys[path] += text in SETTINGS
                messages[path] += sum(word in options for word in re.findall(r"--[a-z-]+", text))
    for path in sorted(keys, key=lambda path: -keys[path]):
        if keys[path] or messages[path]:
            print(f"{keys[path]:4} {messages[path]:4}  {path}")
    print(f"{keys.total():4} {messages.total():4}  names and options, {len(SETTINGS)} settings")


if __name__ == "__main__":
    main()
