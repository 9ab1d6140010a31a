"""Each loss by its definition; an unknown one is refused wherever it comes from."""

from __future__ import annotations

from typing import Any, get_args

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from helpers.refusals import refused

from bench.inputs.estimand import Loss, cell_loss
from bench.running.settings import make_config


def test_every_loss_is_its_definition() -> None:
    d = 2 * torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros_like(d)
    wanted = {
        "l2": d.square().mean(dim=(1, 2, 3)),
        "l1": d.abs().mean(dim=(1, 2, 3)),
        "huber": F.huber_loss(d, zero, reduction="none").mean(dim=(1, 2, 3)),
        "norm": torch.linalg.vector_norm(d, dim=(1, 2, 3)),
    }
    assert set(wanted) == set(get_args(Loss))
    for loss in get_args(Loss):
        torch.testing.assert_close(cell_loss(d, loss), wanted[loss])


def test_the_elements_of_huber_are_torchs_to_the_last_bit() -> None:
    d = torch.cat([torch.linspace(-3, 3, 4001), torch.tensor([1.0, -1.0, 0.0])])
    each = cell_loss(d[:, None, None, None], "huber")
    assert torch.equal(each, F.huber_loss(d, torch.zeros_like(d), reduction="none"))


def test_an_unknown_loss_is_an_error_and_not_huber() -> None:
    unknown: Any = "l9"
    with refused("l9", kind=AssertionError):
        cell_loss(torch.zeros(1, 1, 1, 1), unknown)
    with refused("'l2'", "'l1'", "'huber'", "'norm'"):
        make_config({"dataset": "digits", "loss": "l9"})
