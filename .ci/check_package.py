"""What is in the wheel: not too large, complete, nothing else. Called by .ci/package."""

from __future__ import annotations

import sys
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

MOST = 25_000_000  # bytes of the wheel, both backbones included
NEEDED = (
    "bench/py.typed",
    "bench/store/published.zip",
    "bench/reports/page/templates/page.html",
    "bench/authoring/templates/pyproject.toml.jinja",
    "bench_plugins/backbones/models.toml",
    "bench_plugins/backbones/weights/tiny_digits/unet/diffusion_pytorch_model.safetensors",
    "bench_plugins/backbones/weights/tiny_landuse/unet/diffusion_pytorch_model.safetensors",
)
ROOTS = {"bench", "bench_plugins"}


def main(folder: Path) -> None:
    """Check the one wheel in a folder."""
    [path] = folder.glob("*.whl")
    size = path.stat().st_size
    with ZipFile(path) as wheel:
        names = wheel.namelist()
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        fields = message_from_bytes(wheel.read(metadata))
        largest = sorted(wheel.infolist(), key=lambda one: -one.compress_size)[:5]
    roots = {name.split("/")[0] for name in names}
    wrong = [f"{name} is missing" for name in NEEDED if name not in names]
    wrong += [f"{root} does not belong" for root in roots if not _belongs(root)]
    if not any(name.endswith("licenses/LICENSE") for name in names):
        wrong.append("the licence is missing")
    if fields["License-Expression"] != "Apache-2.0":
        wrong.append(f"the licence is said to be {fields['License-Expression']}")
    if size > MOST:
        wrong.append(f"it has {size:,} bytes, and {MOST:,} are allowed")
    print(f"{path.name}: {len(names)} files, {size / 1e6:.1f} MB; the largest:")
    for one in largest:
        print(f"  {one.compress_size / 1e6:6.2f} MB  {one.filename}")
    if wrong:
        sys.exit("\n".join(wrong))


def _belongs(root: str) -> bool:
    return root in ROOTS or root.endswith(".dist-info")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
