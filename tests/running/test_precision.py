"""The precision of a run: known before anything is loaded, and the same in all parts of a run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command import bench
from helpers.families import save
from helpers.hub import a_hub, point_clients
from helpers.matrix import matrix
from helpers.pipelines import save_pipeline
from helpers.refusals import warned
from helpers.released import made

from bench.contracts.specs import BackboneSpec
from bench.errors import BenchWarning, UserError
from bench.inputs.weights import resolve
from bench.machine.speeds import PEAKS
from bench.running.command import reproducing_command, run_command
from bench.running.parts.machine import find_precision, quicker_precisions
from bench.running.parts.settings import RunConfig, make_config
from bench.running.prepare import prepare, read_content
from bench.running.shards import write_script
from bench_plugins.backbones._pipelines.files import load_pipeline
from bench_plugins.backbones.pipeline_folder import FolderPipeline
from bench_plugins.executors.worker import Job

DIGITS = {"dataset": "digits", "strategy": "full", "params": {"draws": 8}, "batch_size": 8}


def resolved(dtype: str | None, own: str | None, half: str | None, device: str, **more: Any) -> str:
    """Return the precision of a denoiser whose spec names `own`, and its class or file `half`."""
    fields: dict[str, Any] = {"name": "mine", "target": "a:B", "dtype": own, **more.pop("spec", {})}
    config = make_config({"dataset": "digits", "dtype": dtype, "device": device, **more})
    named: Any = half
    return str(find_precision(config, BackboneSpec(**fields), named))


# The GPU is not on this machine, so compute capability 8.0 is assumed.
@pytest.mark.parametrize("auto", [None, "auto"])
@pytest.mark.parametrize(
    ("own", "half", "on_gpu"),
    [
        ("float16", None, "float16"),
        ("bfloat16", "float16", "bfloat16"),
        ("float32", "bfloat16", "float32"),
        (None, "bfloat16", "bfloat16"),
        (None, None, "tf32"),
    ],
)
def test_the_default_on_a_gpu_is_what_spec_class_or_file_name(
    own: str | None, half: str | None, on_gpu: str, auto: str | None
) -> None:
    assert resolved(auto, own, half, "cuda:1") == on_gpu
    for device in ("cpu", "mps"):
        assert resolved(auto, own, half, device) == "float32"


def test_a_gpu_without_the_mode_takes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert resolved(None, "bfloat16", None, "cuda") == "float32"
    assert resolved(None, None, None, "cuda") == "float32"
    assert resolved(None, "float16", None, "cuda") == "float16"
    assert resolved("bfloat16", "float16", None, "cuda") == "bfloat16"  # what is named stays


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_the_user_names_is_taken(device: str) -> None:
    for name in ("float32", "tf32", "bfloat16", "float16"):
        assert resolved(name, "float16", "bfloat16", device) == name
    assert resolved(None, "float16", None, device, tf32=True) == "tf32"
    assert resolved("float32", "float16", None, device, tf32=True) == "tf32"
    assert resolved("float16", "float16", None, device, tf32=True) == "float16"


def test_other_kinds_than_denoisers_stay_in_float32() -> None:
    assert resolved(None, None, None, "cuda", spec={"scorer": "classifier"}) == "float32"
    assert resolved(None, "bfloat16", None, "cuda", spec={"scorer": "likelihood"}) == "bfloat16"


def test_the_main_job_is_planned_in_half_precision() -> None:
    words = ("ucmerced", "--backbone", "sd2", "--strategy", "adaptive", "--device", "cuda")
    plan = bench("run", *words, "--dry-run", "--json").json
    assert plan["dtype"] == plan["dtype_elsewhere"] == "float16"
    seconds = plan["seconds_elsewhere"]
    assert seconds["H100"] <= 1.7 * 3600
    peaks = {name: PEAKS[name]["float16"] for name in seconds}
    assert sorted(seconds, key=seconds.get) == sorted(peaks, key=lambda name: -peaks[name])
    assert plan["seconds_in"].keys() == {"float32", "tf32", "bfloat16"}
    assert any("compute capability 8.0 is assumed (float16)" in text for text in plan["warnings"])


@pytest.mark.parametrize("name", matrix(["tiny-digits", "tiny-landuse"], ["tiny-digits"]))
def test_the_included_models_stay_in_float32(name: str) -> None:
    words = ("run", "digits", "--backbone", name, "--template", "a {class}")
    ids = {
        device: bench(*words, "--device", device, "--dry-run", "--json").json["run_id"]
        for device in ("cpu", "cuda")
    }
    assert ids["cpu"] == ids["cuda"]


def test_tf32_has_two_names_and_one_id() -> None:
    both = {"dtype": "float32", "tf32": True}
    runs = [
        prepare(make_config({**DIGITS, "device": "cuda", **own}))
        for own in ({"dtype": "tf32"}, {"tf32": True}, both)
    ]
    assert len({run.manifest.run_id for run in runs}) == 1
    backbone = runs[0].manifest.identity.backbone
    assert (backbone.dtype, backbone.tf32, backbone.precision) == ("float32", True, "tf32")
    assert "tf32" not in prepare(make_config(DIGITS)).manifest.identity.backbone.plain()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of a class that declares float16."""
    return save_pipeline(tmp_path_factory.mktemp("precision") / "sd15")


@pytest.mark.parametrize(("stored", "wanted"), [("bfloat16", "bfloat16"), ("float32", "tf32")])
def test_a_network_without_a_declaration_runs_as_its_file_stores_it(
    stored: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder or of the Hub, whose file is not downloaded for that."""
    save("pixart", tmp_path / "own").to(getattr(torch, stored)).save_pretrained(tmp_path / "own")
    config = make_config({**DIGITS, "backbone": str(tmp_path / "own"), "device": "cuda"})
    assert read_content(config).names.precision.network == wanted
    assert (
        read_content(config.model_copy(update={"device": "cpu"})).names.precision.network
        == "float32"
    )
    with a_hub() as hub:
        point_clients(hub, tmp_path / "cache", monkeypatch)
        hub.add(f"models/some/{tmp_path.name}", tmp_path / "own")
        on_hub = config.model_copy(update={"backbone": f"some/{tmp_path.name}"})
        assert read_content(on_hub).names.precision.network == wanted
        read = [request for request in hub.log if "safetensors" in request.path]
        assert {request.status for request in read} == {206}  # a part of the file


def test_scripts_and_workers_carry_the_precision(folder: Path, tmp_path: Path) -> None:
    options = {**DIGITS, "backbone": str(folder), "results": str(tmp_path)}
    with warned("compute capability 8.0"):
        script = write_script(make_config(options), 2)
    assert "--dtype float16" in script.read_text()
    on_gpu = prepare(make_config({**options, "device": "cuda"}))
    assert on_gpu.names.precision.network == "float16" and on_gpu.manifest.run_id in str(script)
    carried = RunConfig.model_validate_json(Job.of(on_gpu).settings)
    assert carried.dtype == "float16"
    assert prepare(carried).manifest.run_id == on_gpu.manifest.run_id
    in_tf32 = prepare(make_config({**options, "device": "cuda", "dtype": "tf32"}))
    carried = RunConfig.model_validate_json(Job.of(in_tf32).settings)
    assert prepare(carried).manifest.run_id == in_tf32.manifest.run_id
    assert "--dtype tf32" in shlex.join(run_command(in_tf32.config))


def test_a_run_in_another_precision_is_named_with_the_option_that_continues_it(
    tmp_path: Path,
) -> None:
    short = ("--limit", 4, "--strategy", "full", "--set", "draws=2")
    words = ("run", "digits", *short, "--results", tmp_path, "--json")
    first = bench(*words, "--dtype", "bfloat16")
    assert "continues it" not in first.err
    other = bench(*words)
    assert first.json["run_id"] in other.err
    assert "--dtype bfloat16 --encoding float32 continues it" in other.err
    assert other.json["run_id"] != first.json["run_id"]
    for again in (bench(*words), bench(*words, "--dtype", "bfloat16"), bench(*words, "--fresh")):
        assert "continues it" not in again.err
    planned = bench(*words, "--dtype", "float16", "--dry-run").json["warnings"]
    assert any("continues it" in text for text in planned)
    compared = bench("compare", first.json["results_dir"], other.json["results_dir"], "--json")
    assert compared.json["differences"]["dtype"] == ["bfloat16", "float32"]


def test_a_pipeline_in_memory_in_float32_is_told_what_would_be_quicker() -> None:
    def note(device: str, **settings: Any) -> str | None:
        config = make_config({"dataset": "digits", "device": device, **settings})
        precision = find_precision(config, BackboneSpec(name="mine", target="a:B"))
        return quicker_precisions(device, precision)

    told = note("cuda", dtype="float32")
    assert told is not None and re.search(r"9\.7 times as fast, and tf32=True 4\.6 times", told)
    assert note("cuda", dtype="float16") is note("cuda", tf32=True) is None
    assert note("cpu", dtype="float32") is None


def test_images_are_encoded_in_tf32_beside_a_network_in_half_precision_on_a_gpu() -> None:
    """The identity says so; it has no such entry where they are encoded in float32."""

    def encoding(device: str, dtype: str) -> str | None:
        run = prepare(make_config({**DIGITS, "device": device, "dtype": dtype}))
        assert ("encoding" in run.manifest.identity.backbone.plain()) == (
            run.manifest.identity.backbone.encoding is not None
        )
        return run.manifest.identity.backbone.encoding

    assert encoding("cuda", "bfloat16") == encoding("cuda", "float16") == "tf32"
    assert encoding("cuda", "float32") is encoding("cuda", "tf32") is None
    assert encoding("cpu", "bfloat16") is None


@pytest.mark.parametrize(("kind", "kept"), [("WanPipeline", True), ("PixArtAlphaPipeline", None)])
def test_the_identity_says_that_a_class_keeps_tensors_in_float32(
    kind: str, kept: bool | None, tmp_path: Path
) -> None:
    """They are those that diffusers keeps; the T5 of PixArt is read as its library reads it."""
    folder = tmp_path / "model"
    (made(kind) if kept else save("pixart", folder)).save_pretrained(folder)
    options = {**DIGITS, "backbone": str(folder), "device": "cpu", "resolution": 32}
    for dtype, wanted in (("bfloat16", kept), ("float32", None)):
        identity = prepare(make_config({**options, "dtype": dtype})).manifest.identity.backbone
        assert identity.float32_parts is wanted
    pipe = load_pipeline(FolderPipeline.empty(resolve(str(folder)), "bfloat16"))
    theirs = type(pipe).from_pretrained(folder, torch_dtype=torch.bfloat16)
    for part in ("transformer", "text_encoder"):
        dtypes = [
            {name: value.dtype for name, value in getattr(one, part).state_dict().items()}
            for one in (pipe, theirs)
        ]
        assert dtypes[0] == dtypes[1]


def test_parts_on_other_devices_encode_images_as_the_driver_does(tmp_path: Path) -> None:
    """A driver on a CPU and workers with GPUs make one run, and so do GPUs with and without TF32.

    A device without TF32 refuses it, as does a network that is not in half precision.
    """
    options = {**DIGITS, "dtype": "bfloat16", "results": str(tmp_path)}
    on_cpu = prepare(make_config({**options, "device": "cpu"}))
    carried = RunConfig.model_validate_json(Job.of(on_cpu).settings)
    with_gpu = prepare(carried.model_copy(update={"device": "cuda"}))
    assert with_gpu.manifest.run_id == on_cpu.manifest.run_id
    on_gpu = prepare(make_config({**options, "device": "cuda"}))
    assert on_gpu.manifest.run_id != on_cpu.manifest.run_id
    assert "--encoding tf32" in reproducing_command(on_gpu.manifest)
    carried = RunConfig.model_validate_json(Job.of(on_gpu).settings)
    for changes in ({"device": "cpu"}, {"device": "cuda", "dtype": "float32"}):
        with pytest.raises(UserError) as refused:
            prepare(carried.model_copy(update=changes))
        assert "--encoding" in str(refused.value)
    with pytest.warns(BenchWarning):
        script = write_script(make_config({**options, "device": None}), 2).read_text()
    assert "--encoding tf32" in script and "--device cpu --encoding float32" in script
