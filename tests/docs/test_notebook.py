"""The notebook and the Dockerfile do what the README says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import ROOT

NOTEBOOK = ROOT / "docs" / "first-steps.ipynb"


def code() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_is_plain_python_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not [cell for cell in cells if cell["outputs"] or cell["execution_count"]]
    for source in code():
        compile(source, str(NOTEBOOK), "exec")


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    script = "\n".join([*code(), "print(digits.metrics.accuracy, len(own.samples))"])
    command = [sys.executable, "-c", f"import matplotlib; matplotlib.use('agg')\n{script}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "40" and (tmp_path / "tradeoff.png").stat().st_size > 1000


def test_the_image_is_made_by_the_readmes_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    [run] = re.findall(r"^RUN (.+)$", dockerfile, re.M)
    commands = [re.sub(r" --no-cache-dir", "", part) for part in run.split(" && ")]
    assert " && ".join(commands) in readme and len(commands) == 2
    assert len([line for line in dockerfile.splitlines() if not line.startswith("#")]) <= 6
