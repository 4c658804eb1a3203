"""The moving average of the weights, which is what a stage is worth at its end."""

import functools
from typing import Any

import torch
from pytorch_lightning.callbacks import WeightAveraging


class AveragedWeights(WeightAveraging):
    """Lightning's averaging with our rule; the average can be looked at during training.

    Args:
        decay: See `ema`.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=functools.partial(ema, decay=decay))

    @property
    def network(self) -> Any:
        """The network of the averaged module; only during training."""
        assert self._average_model is not None
        return self._average_model.module.network


def ema(averaged: torch.Tensor, current: torch.Tensor, n_averaged: Any, decay: float) -> torch.Tensor:
    """Moving average of weights whose memory grows to `decay`, so that it forgets the start of a short training.

    Lightning averages the running statistics of batch normalisation along, so they stay those of the averaged weights.
    Integers, such as the position index of shifted-window attention, are kept: their average would be rounded down.
    """
    if not averaged.is_floating_point():
        return current
    n = int(n_averaged)
    momentum = min(decay, (1 + n) / (10 + n))
    return averaged * momentum + current * (1 - momentum)
