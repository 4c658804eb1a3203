"""Measure training steps on this machine: precision and memory layout, as ratios within one run.

    hngtv benchmark
    hngtv benchmark crop_voxels=[64,64,48] n_threads=2 network=unet

The kinds take turns step by step, so that a machine whose speed drifts slows all of them alike; medians are printed.
Processor seconds count all threads. bf16 is left out where the processor does not compute in it.

Exit status: 0 done, 2 bad settings.
"""

import time
from itertools import product

from hngtv.config import BenchmarkSettings


def run(settings: BenchmarkSettings) -> None:
    """Time forward, backward and optimiser step of the network on random crops."""
    import numpy as np
    import torch

    from hngtv.training.machine import has_bf16_units

    if settings.n_threads:
        torch.set_num_threads(settings.n_threads)
    precisions = ("fp32", "bf16") if has_bf16_units("cpu") else ("fp32",)
    kinds = list(product(precisions, ("contiguous", "channels_last")))
    steps = {kind: _build_step(settings, *kind) for kind in kinds}
    seconds: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
    for turn in range(settings.n_steps + 1):
        for kind, step in steps.items():
            started = time.process_time()
            step()
            if turn > 0:
                seconds[kind].append(time.process_time() - started)
    base = float(np.median(seconds[kinds[0]]))
    crops = f"{settings.batch_size} crops of {settings.crop_voxels}"
    print(f"training step, {crops}, {torch.get_num_threads()} thread(s), processor seconds")
    for kind in kinds:
        median = float(np.median(seconds[kind]))
        print(f"  {' '.join(kind):<22} {median:7.3f} s   x {median / base:.2f}")


def _build_step(settings: BenchmarkSettings, precision: str, layout: str):
    import torch

    from hngtv.config import LossSettings
    from hngtv.networks.build import build_network, to_fast_layout
    from hngtv.training.losses import SupervisedLoss

    torch.manual_seed(0)
    network = build_network(settings.network, in_channels=2, out_channels=2)
    if layout == "channels_last":
        to_fast_layout(network)
    optimiser = torch.optim.AdamW(network.parameters())
    loss = SupervisedLoss(LossSettings(dice_weight=1, cross_entropy_weight=1))
    image = torch.randn(settings.batch_size, 2, *settings.crop_voxels)
    target = (torch.rand(settings.batch_size, 1, *settings.crop_voxels) > 0.9).float()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            value = loss(network.run(image), target)
        value.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step
