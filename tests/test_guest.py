"""The process of a caller is as it was, once `bench` is imported and after all that it did."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command import python
from jupyter_client.manager import start_new_kernel

import bench

STATE = """
import gc, json, logging, os, random, signal, socket, sys, threading, warnings
import datasets, diffusers, huggingface_hub, matplotlib, numpy, PIL.Image, torch, transformers
import matplotlib.pyplot, pandas, peft, pyarrow.parquet, scipy.stats, sklearn.linear_model
from transformers import AutoModel, CLIPTextModel
diffusers.StableDiffusionPipeline, diffusers.UNet2DConditionModel  # imported on first use

def settings():
    libraries = (transformers.utils, diffusers.utils, datasets, huggingface_hub)
    backends = torch.backends
    loggers = {**logging.Logger.manager.loggerDict, "": logging.getLogger()}
    return {
        "logs": [library.logging.get_verbosity() for library in libraries],
        "bars": [library.logging.is_progress_bar_enabled() for library in libraries[:2]],
        "other bars": [library.utils.are_progress_bars_disabled()
                       for library in (datasets, huggingface_hub)],
        "TF32": [backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32,
                 torch.get_float32_matmul_precision(), backends.cudnn.benchmark],
        "threads of torch": torch.get_num_threads(),
        "torch": [str(torch.get_default_dtype()), str(torch.get_default_device()),
                  torch.is_grad_enabled(), torch.is_inference_mode_enabled()],
        "random states": [str(torch.get_rng_state().sum()), str(random.getstate())[:80],
                          str(numpy.random.get_state())[:200]],
        "numpy": [numpy.geterr(), str(numpy.get_printoptions())],
        "filters": [str(entry) for entry in warnings.filters],
        "loggers": {name: [logger.level, logger.propagate, len(logger.handlers)]
                    for name, logger in loggers.items() if isinstance(logger, logging.Logger)
                    and not name.startswith("bench")},
        "environment": dict(os.environ),
        "collector": [gc.isenabled(), gc.get_threshold()],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "hooks": [str(hook) for hook in (sys.excepthook, sys.unraisablehook, threading.excepthook,
                                         warnings.showwarning, sys.displayhook)],
        "functions": [str(function) for function in (
            torch.autocast, torch.nn.functional.scaled_dot_product_attention, torch.Tensor.__bool__,
            torch.nn.Module.__call__, torch.nn.init.normal_, socket.socket.connect, open, print)],
        "images": [PIL.Image.MAX_IMAGE_PIXELS, PIL.Image.ImageFile.LOAD_TRUNCATED_IMAGES
                   if hasattr(PIL.Image, "ImageFile") else None],
        "plots": [str(dict(matplotlib.rcParams))],
        "places": [os.getcwd(), list(sys.path), str(sys.stdout), str(sys.stderr)],
        "limits": [sys.getrecursionlimit(), socket.getdefaulttimeout(), sys.getswitchinterval()],
    }

def differing(before):
    after = settings()
    loggers = {name: of for name, of in after["loggers"].items() if name in before["loggers"]}
    after["loggers"] = loggers  # a module that is imported makes its own
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}
"""
WORK = """
def work(folder):
    few = {"strategy": "full", "params": {"draws": 2}, "limit": 2, "results": folder}
    yield "import", lambda: __import__("bench")
    import bench
    from bench.errors import UserError

    def failing(**changed):
        try:
            bench.run("digits", **{**few, **changed})
        except (UserError, Exception) as error:
            return error
        raise AssertionError("it did not fail")

    picture = PIL.Image.new("RGB", (8, 8))
    yield "run", lambda: bench.run("digits", **few)
    yield "the run again", lambda: bench.run("digits", **few)
    yield "a failing run", lambda: failing(params={"draws": 0})
    yield "a run without weights", lambda: failing(weights=folder + "/nothing")
    yield "an offline run", lambda: bench.run("digits", offline=True, seed=1, **few)
    yield "classify", lambda: bench.classify(picture, ["cat", "dog"], **{
        "strategy": "full", "params": {"draws": 2}, "backbone": "tiny-digits"})
    yield "a backbone", lambda: bench.load_backbone("tiny-digits")
    yield "data", lambda: bench.load_dataset("digits")[0]
    yield "prompts", lambda: bench.prompts("digits")
    yield "a study", lambda: bench.run(["digits"], ["tiny-digits", "random"], **few)
    yield "the leaderboard", lambda: bench.leaderboard(folder)
    yield "a figure", lambda: bench.tradeoff_figure(results=folder)

def compare(folder):
    changed = {}
    for name, act in work(folder):
        before = settings()
        act()
        if of := differing(before):
            changed[name] = of
    return changed
"""
RESULT = "\nprint('\\n' + json.dumps(compare({folder!r})))"


def here(code: str) -> str:
    """Return what is printed in this process, which other tests have imported libraries into."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue()


def in_a_process(code: str) -> str:
    """Return what a process prints."""
    done = python(code)
    assert done.code == 0, done.err
    return done.out


def in_a_kernel(code: str) -> str:
    """Return what a cell of a notebook prints."""
    manager, client = start_new_kernel(kernel_name="python3")
    printed = []

    def hear(message: dict[str, Any]) -> None:
        content = message["content"]
        assert message["msg_type"] != "error", "\n".join(content["traceback"])
        printed.append(content.get("text", "") if content.get("name") == "stdout" else "")

    try:
        client.execute_interactive(code, timeout=600, output_hook=hear)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return "".join(printed)


@pytest.mark.parametrize(
    "execute",
    [here, *(pytest.param(new, marks=pytest.mark.long) for new in (in_a_process, in_a_kernel))],
)
def test_a_process_is_as_it_was(
    execute: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # made by the first kernel
    printed = execute(STATE + WORK + RESULT.format(folder=str(tmp_path / "results")))
    assert json.loads(printed.strip().splitlines()[-1]) == {}


def test_the_package_shows_its_public_names_alone() -> None:
    assert dir(bench) == sorted(bench.__all__)
