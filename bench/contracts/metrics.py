"""The earlier name of `bench.contracts.metric_spec`, which plugins may import."""

from bench.contracts.metric_spec import ClassRatio as ClassRatio
from bench.contracts.metric_spec import MetricSpec as MetricSpec
