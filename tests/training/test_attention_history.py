"""Alphas kept in training: where the tumour is, at the moments asked for, and again after a resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from hngtv.cases.store import PreparedCase
from hngtv.config import IntensitySettings, LossSettings, OptimiserSettings, UNetSettings, plain
from hngtv.training.attention_history import MOMENTS, AttentionHistory, watch
from hngtv.training.fine import FineSegmentationModule

INTENSITY = IntensitySettings(ct_windows_hu=((-160.0, 240.0),), pet_max_suv=20.0, pet_scale="linear")
N_STEPS = 20


def module(n_gates: int = 1, n_steps: int = N_STEPS) -> FineSegmentationModule:
    network = UNetSettings(
        name="attention_unet" if n_gates else "unet",
        widths=(4, 8, 8),
        norm="group",
        deep_supervision="none",
        n_gates=n_gates,
    )
    optimiser = OptimiserSettings(
        learning_rate=0.01, weight_decay=0, warmup_share=0.1, batch_size=1, ema_decay=0.9, gradient_clip=1
    )
    loss = LossSettings(dice_weight=1, cross_entropy_weight=1)
    torch.manual_seed(0)
    return FineSegmentationModule(plain(network), plain(loss), plain(optimiser), 2, 2, total_steps=n_steps)


def train(callback: AttentionHistory, network: FineSegmentationModule, n_batches: int, accumulate: int = 1) -> None:
    data = TensorDataset(torch.randn(n_batches, 2, 8, 8, 8), torch.zeros(n_batches, 1, 8, 8, 8))
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback], accumulate_grad_batches=accumulate,
    )  # fmt: skip
    trainer.fit(network, DataLoader(data))


def test_the_largest_target_is_watched_in_its_fullest_slice(prepared: list[PreparedCase]) -> None:
    crop = watch(prepared, (16, 12, 8), INTENSITY)
    assert crop is not None
    assert crop.image.shape == (2, 16, 12, 8)
    assert crop.case_id == max(prepared, key=lambda case: case.n_target_voxels("fine")).case_id
    counts = (crop.target > 0).sum(axis=(0, 1))
    assert counts[crop.z] == counts.max() > 0


def test_alphas_are_kept_at_each_moment(prepared: list[PreparedCase], tmp_path: Path) -> None:
    crop = watch(prepared, (16, 12, 8), INTENSITY)
    assert crop is not None
    network = module(n_gates=2)
    train(AttentionHistory(tmp_path / "a.npz", crop), network, N_STEPS)
    with np.load(tmp_path / "a.npz") as kept:
        assert kept["steps"].tolist() == [0, 1, 4, 10, 20]
        assert kept["alpha:gate2"].shape == (len(MOMENTS), 2, 16, 12)
        assert kept["tumour"].shape == (len(MOMENTS), 16, 12)
        np.testing.assert_array_equal(kept["target"], crop.target[..., crop.z])
        assert kept["alpha:gate2"][0].min() > 0.9, "gates start open"
        assert not np.array_equal(kept["alpha:gate2"][0], kept["alpha:gate2"][-1])
    assert network.network.training


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_short_training_keeps_no_step_twice(prepared: list[PreparedCase], tmp_path: Path, accumulate: int) -> None:
    crop = watch(prepared, (16, 12, 8), INTENSITY)
    assert crop is not None
    train(AttentionHistory(tmp_path / "a.npz", crop), module(n_steps=2), 2 * accumulate, accumulate)
    with np.load(tmp_path / "a.npz") as kept:
        assert kept["steps"].tolist() == [0, 1, 2]


def test_a_resumed_training_keeps_what_was_kept(prepared: list[PreparedCase], tmp_path: Path) -> None:
    crop = watch(prepared, (16, 12, 8), INTENSITY)
    assert crop is not None
    first = AttentionHistory(tmp_path / "a.npz", crop)
    train(first, module(), 5)
    state: dict[str, Any] = {"records": first.records[:-1]}
    torch.save(state, tmp_path / "state")
    resumed = AttentionHistory(tmp_path / "b.npz", crop)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    resumed.on_train_start(pl.Trainer(logger=False, accelerator="cpu"), module())
    assert [record["step"] for record in resumed.records] == [0, 1, 4]


def test_a_network_without_gates_leaves_no_file(prepared: list[PreparedCase], tmp_path: Path) -> None:
    crop = watch(prepared, (16, 12, 8), INTENSITY)
    assert crop is not None
    train(AttentionHistory(tmp_path / "a.npz", crop), module(n_gates=0), 2)
    assert not (tmp_path / "a.npz").exists()
