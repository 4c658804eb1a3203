"""AdamW with linear warm-up and a cosine to zero."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from hngtv.config import OptimiserSettings

BETAS = (0.9, 0.99)
"""Decay of Adam's moments: a shorter memory than usual, for short trainings. Source: our choice."""


def build_optimiser(module: nn.Module, settings: OptimiserSettings) -> torch.optim.AdamW:
    """AdamW; normalisation scales and biases are not decayed."""
    decayed = [p for p in module.parameters() if p.dim() > 1]
    others = [p for p in module.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=BETAS)


def build_schedule(
    optimiser: torch.optim.Optimizer, settings: OptimiserSettings, total_steps: Callable[[], int]
) -> LambdaLR:
    """Learning-rate factor by step: linear to 1 over the warm-up share, then a cosine that ends at 0.

    Args:
        optimiser: Its learning rate is the highest one.
        settings: Share of the warm-up.
        total_steps: Asked at each step, since a time budget corrects it on the way.
    """

    def factor(step: int) -> float:
        total = total_steps()
        n_warmup = max(1, round(settings.warmup_share * total))
        if step >= total:
            return 0.0
        if step < n_warmup:
            return (step + 1) / n_warmup
        return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / (total - n_warmup)))

    return LambdaLR(optimiser, factor)
