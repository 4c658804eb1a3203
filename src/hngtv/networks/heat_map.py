"""What the channels of a heat-map network mean; training and inference both read them here.

Channel 0 is the logit of background, as in every network here, so `networks/attention_unet.py` starts with a heat of
sigmoid(-2) = 0.12 everywhere; CenterNet starts with sigmoid(-2.19) = 0.10. Channels 1 to 3 are the logarithms of the
side lengths of a lesion's box along x, y and z, in units of `TYPICAL_MM`.
"""

import math

import torch
from torch import Tensor

N_CHANNELS = 4
TYPICAL_MM = 30.0
"""Side length that a network starts with. Source: our choice, about that of a small primary tumour."""


def heat_logits_of(logits: Tensor) -> Tensor:
    """Logits (N, 1, X, Y, Z) of a lesion's centre, of a network's logits (N, 4, X, Y, Z)."""
    return -logits[:, :1]


def log_sides_of(logits: Tensor) -> Tensor:
    """Natural logarithms (N, 3, X, Y, Z) of side lengths in mm, of a network's logits (N, 4, X, Y, Z)."""
    return logits[:, 1:] + math.log(TYPICAL_MM)


def read_maps(logits: Tensor) -> Tensor:
    """Heat in [0, 1] and side lengths in mm (N, 4, X, Y, Z), of a network's logits (N, 4, X, Y, Z)."""
    return torch.cat([heat_logits_of(logits).sigmoid(), log_sides_of(logits).exp()], dim=1)
