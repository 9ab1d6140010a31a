"""The earlier name of `bench.contracts.metric`, which plugins may import."""

from bench.contracts.metric import NO_ANSWER as NO_ANSWER
from bench.contracts.metric import Metric as Metric
from bench.contracts.metric import MetricInput as MetricInput
