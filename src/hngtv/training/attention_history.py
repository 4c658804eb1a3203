"""What the gates look at while they learn: alphas of one training crop, kept at a few moments of training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from hngtv.cases.intensity import window
from hngtv.cases.store import PreparedCase
from hngtv.config import IntensitySettings
from hngtv.run_folder import atomic_path
from hngtv.training.stage import SegmentationStage

MOMENTS = (0.0, 0.05, 0.2, 0.5, 1.0)
"""Shares of the training at which alphas are kept. Source: our choice; most changes early."""
MAP_PREFIX = "alpha:"
"""Before the names of attention maps, so that they can be told from the rest."""


@dataclass(frozen=True)
class WatchedCrop:
    """A crop of a training case around its tumour, and the axial slice of it that is shown.

    Attributes:
        case_id: The case.
        image: (2, X, Y, Z) float32, CT in HU and PET in SUV.
        target: (X, Y, Z) labels.
        z: The slice with most tumour.
        intensity: Windows of the network's input.
    """

    case_id: str
    image: NDArray[np.float32]
    target: NDArray[np.uint8]
    z: int
    intensity: IntensitySettings


def watch(cases: Sequence[PreparedCase], size: Sequence[int], intensity: IntensitySettings) -> WatchedCrop | None:
    """The crop of `size` voxels around the largest target of the training cases; None if all are empty."""
    case = max(cases, key=lambda case: (case.n_target_voxels("fine"), case.case_id))
    box = case.target_box("fine")
    if box is None:
        return None
    centre = np.rint(case.grid("fine").to_index(np.array(box.centre_mm))).astype(int)
    x, y, z = (slice(int(c - n // 2), int(c - n // 2 + n)) for c, n in zip(centre, size, strict=True))
    image, target = case.read_crop("fine", (x, y, z))
    return WatchedCrop(case.case_id, image, target, int((target > 0).sum(axis=(0, 1)).argmax()), intensity)


class AttentionHistory(pl.Callback):
    """Keeps the alphas of a watched crop at `MOMENTS` of training, no step twice, and writes them at its end.

    The file holds: `case_id`; `ct` (X, Y) in HU, `pet` in SUV, `target`; `steps` (T,); `tumour` (T, X, Y), the
    probability; and for each gate, under `MAP_PREFIX` and its name, its alphas (T, n_gates, X, Y), resized to the crop.
    The weights are those of the step, not their moving average.

    Args:
        path: The `.npz` file; not written by a network without gates.
        crop: What is watched.
    """

    def __init__(self, path: Path, crop: WatchedCrop) -> None:
        self.path = path
        self.crop = crop
        self.records: list[dict[str, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.records:
            self._record(0, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, SegmentationStage)
        step, number = trainer.global_step, len(self.records)
        is_new = step > self.records[-1]["step"]  # false while gradients of several batches add up to one step
        if is_new and number < len(MOMENTS) - 1 and step >= MOMENTS[number] * pl_module.total_steps:
            self._record(step, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.records[-1]["step"] != trainer.global_step:
            self._record(trainer.global_step, pl_module)
        maps = [name for name in self.records[0] if name.startswith(MAP_PREFIX)]
        if not maps or trainer.local_rank != 0:
            return
        (ct, pet), z = self.crop.image, self.crop.z
        series = {name: np.stack([record[name].numpy() for record in self.records]) for name in ["tumour", *maps]}
        with atomic_path(self.path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                case_id=np.array(self.crop.case_id),
                ct=ct[..., z],
                pet=pet[..., z],
                target=self.crop.target[..., z],
                steps=np.array([record["step"] for record in self.records]),
                **series,  # pyright: ignore[reportArgumentType]
            )

    def _record(self, step: int, module: pl.LightningModule) -> None:
        assert isinstance(module, SegmentationStage)
        network, z = module.network, self.crop.z
        image = torch.from_numpy(window(self.crop.image, self.crop.intensity))[None].to(module.device)
        network.eval()
        with torch.no_grad():
            output = network.run(image)
        network.train()
        record: dict[str, Any] = {"step": step}
        record["tumour"] = 1 - output.logits.float().softmax(dim=1)[0, 0, ..., z].cpu()
        for name, alpha in output.attention_like(image.shape[2:]).items():
            record[MAP_PREFIX + name] = alpha[0, ..., z].float().cpu()
        self.records.append(record)

    def state_dict(self) -> dict[str, Any]:
        return {"records": list(self.records)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.records = list(state_dict["records"])
