"""What the tests share: small pipelines, a private cache, and the command as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

UCMERCED = Path(os.environ.get("BENCH_TEST_UCMERCED", ROOT.parent / "shared/data/ucmerced"))


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's cache, variables or results."""
    for name in [name for name in os.environ if name.startswith("BENCH_")]:
        if name != "BENCH_TEST_UCMERCED":
            del os.environ[name]
    os.environ["BENCH_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["HF_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("datasets"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["GOMP_SPINCOUNT"] = "10000"  # tests run side by side


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random pipelines that keep the traits of SD 1.5 (epsilon) and SD 2.1 (v-prediction)."""
    from helpers.pipelines import save_pipeline

    folder = tmp_path_factory.mktemp("pipelines")
    return {kind: save_pipeline(folder / kind, kind) for kind in ("sd15", "sd21")}


@dataclass
class Finished:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def bench(*arguments: object, timeout: float = 300, **variables: str) -> Finished:
    """Run the command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **variables},
        timeout=timeout,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes of four pictures each, of several sizes and modes."""
    from PIL import Image

    for index in range(8):
        name = "cat" if index % 2 else "hot_dog"
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True, exist_ok=True)
        mode, colour = ("L", 25 * index) if index < 2 else ("RGB", (30 * index, 10, 200))
        Image.new(mode, (20 + index, 24), colour).save(folder / f"{index}.png")
    return tmp_path / "pictures"
