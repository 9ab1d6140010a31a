"""The packages to install: `bench`, and `plugins`, which is installed as `bench_plugins`."""

from setuptools import find_packages, setup

setup(
    package_dir={"bench": "bench", "bench_plugins": "plugins"},
    packages=[
        *find_packages(include=["bench", "bench.*"]),
        "bench_plugins",
        *(f"bench_plugins.{name}" for name in find_packages("plugins")),
    ],
)
