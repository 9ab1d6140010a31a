"""The pipeline in memory that people alter, made once for all tests of it."""

from helpers.altered import lora as lora
from helpers.altered import original as original
from helpers.altered import pipe as pipe
from helpers.altered import plain as plain
