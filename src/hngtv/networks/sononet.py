"""SonoNet and AG-SonoNet of Schlemper, Oktay et al. 2019: slice classifiers, without and with attention gates.

The gates' maps show where a class was seen, though the network is trained on the classes of whole images alone.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from hngtv.networks.attention_gate import AttentionGate

Aggregation = Literal["concat", "mean", "deep_supervision", "ft"]

WIDTHS = (8, 16, 32)
"""Channels of the first block, which name the network. Source: the paper."""

N_CONVOLUTIONS = (3, 3, 3, 2, 2)
"""Convolutions of each block. Source: the released code."""

GROWTH = (1, 2, 4, 8, 8)
"""Channels of each block as multiples of the width. Source: the released code."""

MIN_SIDE = 2 ** (len(N_CONVOLUTIONS) - 1)
"""Shortest image side, in pixels: one pixel after the pooling between the blocks."""

LOSS_WEIGHTS: dict[Aggregation, tuple[float, ...]] = {
    "concat": (1.0,),
    "mean": (1.0, 1.0, 1.0),
    "deep_supervision": (1.0, 0.1, 0.1, 0.1),
    "ft": (1.0,),
}
"""Weight of the cross-entropy of each head, in the order of `ClassifierOutput.heads`. Source: the released settings."""


@dataclass(frozen=True)
class ClassifierOutput:
    """What a forward pass yields.

    Attributes:
        logits: (N, classes), the answer. Their softmax is the probability of each class.
        heads: Logits (N, classes) to train on, see `classification_loss`. "deep_supervision": of all vectors together,
            of gate 3, of gate 4, of block 5. "mean": of the last three. Else: `logits` alone.
        weights: Weight of each head in the loss.
        attention: Gate name to alpha (N, 1, X_l, Y_l), at least 0 and of sum 1 over the grid of the gated block.
    """

    logits: Tensor
    heads: tuple[Tensor, ...]
    weights: tuple[float, ...]
    attention: dict[str, Tensor]


class SonoNet(nn.Module):
    """Five blocks of convolutions with pooling between them, then classes.

    Plain, two 1 x 1 convolutions turn block 5 into class maps, which are averaged. Gated, block 5 is the gating signal
    of blocks 3 and 4; alpha sums to 1, so that sum_i alpha_i x_i is a weighted average of a block's features. These
    two vectors and the average of block 5 are classified together or each for itself:

    - "concat": one linear layer on all three.
    - "mean": one on each. The answer is the mean of their probabilities; `logits` are its logarithms.
    - "deep_supervision": both of these. The answer is that of "concat"; the others have a share in the loss.
    - "ft": one on each, and one on their logits, which answers. That is fine-tuned, in two steps as we read the paper:
      train a "mean" network, then train on what its `fine_tuned()` returns. A network built as "ft" is at step 2 with
      fresh weights: what the released settings train, and what a checkpoint of step 2 is loaded into.

    Sides of any length from `MIN_SIDE` on work; pooling drops the last row of an odd side. Upsampling does not align
    corners, where PyTorch did so when the paper was written.

    Args:
        in_channels: Input channels: 1 in the paper, 2 for CT and PET.
        n_classes: Classes, background included; 14 in the paper.
        width: Channels of the first block, one of `WIDTHS`.
        gated: AG-SonoNet, else SonoNet.
        aggregation: See above; a plain network has one head and ignores it.
    """

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 14,
        width: int = 8,
        gated: bool = True,
        aggregation: Aggregation = "ft",
    ) -> None:
        super().__init__()
        _check_settings(in_channels, n_classes, width, aggregation)
        self.in_channels, self.n_classes = in_channels, n_classes
        self.gated: bool = gated
        self.aggregation: Aggregation = aggregation
        widths = [width * times for times in GROWTH]
        inputs = [in_channels, *widths[:-1]]
        self.blocks = nn.ModuleList(
            _build_block(a, b, n) for a, b, n in zip(inputs, widths, N_CONVOLUTIONS, strict=True)
        )
        vectors = widths[2:]
        if gated:
            # F_int is the width of block 5. Source: the released code.
            self.gates = nn.ModuleDict(
                {
                    f"gate{number}": AttentionGate(
                        widths[number - 1], widths[-1], "sononet", spatial_dims=2, inner_channels=widths[-1]
                    )
                    for number in (3, 4)
                }
            )
            n_heads = 0 if aggregation == "concat" else len(vectors)
            self.heads = nn.ModuleList(nn.Linear(channels, n_classes) for channels in vectors[:n_heads])
            if aggregation != "mean":
                self.classifier = nn.Linear(
                    len(vectors) * n_classes if aggregation == "ft" else sum(vectors), n_classes
                )
        else:
            self.adaptation = nn.Sequential(
                *_build_layers(widths[-1], widths[2], kernel_size=1),
                *_build_layers(widths[2], n_classes, kernel_size=1)[:-1],
            )
        self.apply(_initialise)

    def forward(self, images: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Logits (N, classes) of images (N, C, X, Y); with `return_attention` also the alphas by gate.

        They stay on the grids of the gated blocks, where they sum to 1; see `ClassifierOutput.attention`.
        """
        if return_attention and not self.gated:
            raise ValueError("got return_attention=True, but a plain SonoNet has no gates: build it with gated=True")
        output = self.run(images)
        return (output.logits, output.attention) if return_attention else output.logits

    def run(self, images: Tensor) -> ClassifierOutput:
        """The whole output of a forward pass; see `ClassifierOutput`."""
        self._check_images(images)
        features = []
        for number, block in enumerate(self.blocks):
            images = block(images if number == 0 else functional.max_pool2d(images, kernel_size=2))
            features.append(images)
        last = features[-1]
        if not self.gated:
            logits = self.adaptation(last).mean(dim=(2, 3))
            return ClassifierOutput(logits, (logits,), (1.0,), {})
        vectors, attention = [], {}
        for (name, gate), gated in zip(self.gates.items(), features[2:4], strict=True):
            weighted, attention[name] = gate(gated, last)
            vectors.append(weighted.sum(dim=(2, 3)))
        logits, heads = self._classify([*vectors, last.mean(dim=(2, 3))])
        return ClassifierOutput(logits, heads, LOSS_WEIGHTS[self.aggregation], attention)

    def fine_tuned(self) -> "SonoNet":
        """Step 2 of "ft" from step 1: a copy of this trained "mean" network with a linear layer on its logits.

        All its weights can be trained; the new layer starts as PyTorch starts it. The optimiser must be built anew.
        """
        if not self.gated or self.aggregation != "mean":
            kind = f"a network with aggregation={self.aggregation!r}" if self.gated else "a plain network"
            raise ValueError(f"got {kind} to fine-tune, needs a gated one: train SonoNet(aggregation='mean') first")
        tuned = copy.deepcopy(self)
        tuned.aggregation = "ft"
        place = next(self.parameters())
        tuned.classifier = nn.Linear(
            len(self.heads) * self.n_classes, self.n_classes, device=place.device, dtype=place.dtype
        )
        return tuned

    def _classify(self, vectors: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The answer and the heads' logits, from the vectors of gate 3, gate 4 and block 5."""
        if self.aggregation == "concat":
            logits = self.classifier(torch.cat(vectors, dim=1))
            return logits, (logits,)
        separate = tuple(head(vector) for head, vector in zip(self.heads, vectors, strict=True))
        if self.aggregation == "mean":
            log_probabilities = torch.stack([logits.log_softmax(dim=1) for logits in separate])
            return log_probabilities.logsumexp(dim=0) - math.log(len(separate)), separate
        if self.aggregation == "deep_supervision":
            logits = self.classifier(torch.cat(vectors, dim=1))
            return logits, (logits, *separate)
        logits = self.classifier(torch.cat(separate, dim=1))
        return logits, (logits,)

    def _check_images(self, images: Tensor) -> None:
        got = f"got images of shape {tuple(images.shape)}"
        if images.dim() != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"{got}, expected (N, {self.in_channels}, X, Y): reshape them, or build SonoNet with other in_channels"
            )
        n, _, *sides = images.shape
        if min(sides) < MIN_SIDE:
            raise ValueError(f"{got}, allowed are sides of {MIN_SIDE} and more for this depth: pad or resize them")
        if self.training and n * (sides[0] // MIN_SIDE) * (sides[1] // MIN_SIDE) == 1:
            raise ValueError(
                f"{got}, one pixel at block 5, and batch normalisation needs two to train: "
                f"give more images, or a side of at least {2 * MIN_SIDE}"
            )


def classification_loss(output: ClassifierOutput, labels: Tensor) -> Tensor:
    """Weighted sum of the heads' cross-entropies, a scalar.

    Args:
        output: Of `SonoNet.run`.
        labels: (N,) int64, the class of each image.
    """
    terms = [
        weight * functional.cross_entropy(logits, labels)
        for weight, logits in zip(output.weights, output.heads, strict=True)
    ]
    return torch.stack(terms).sum()


def _check_settings(in_channels: int, n_classes: int, width: int, aggregation: str) -> None:
    if in_channels < 1:
        raise ValueError(f"in_channels: got {in_channels}, allowed are 1 and more: give the channels of your images")
    if n_classes < 2:
        raise ValueError(f"n_classes: got {n_classes}, allowed are 2 and more: count the background as a class")
    if width not in WIDTHS:
        raise ValueError(f"width: got {width}, allowed are {_listed(WIDTHS)}: choose the nearest")
    if aggregation not in get_args(Aggregation):
        raise ValueError(f"aggregation: got {aggregation!r}, allowed are {_listed(get_args(Aggregation))}: choose one")


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def _build_block(in_channels: int, out_channels: int, n_convolutions: int) -> nn.Sequential:
    inputs = [in_channels] + [out_channels] * (n_convolutions - 1)
    return nn.Sequential(*(layer for channels in inputs for layer in _build_layers(channels, out_channels, 3)))


def _build_layers(in_channels: int, out_channels: int, kernel_size: int) -> list[nn.Module]:
    """Convolution with bias, batch normalisation, ReLU. Source: the released code."""
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


def _initialise(layer: nn.Module) -> None:
    """Kaiming-normal convolutions, scales of 1 with a spread of 0.02; linear layers as PyTorch has them.

    Source: the released code.
    """
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, mean=1.0, std=0.02)
