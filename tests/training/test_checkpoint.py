"""Checkpoints are whole or absent, and hold no pickled code."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from hngtv.errors import InputError
from hngtv.training.checkpoint import AtomicCheckpointIO, RandomState, checkpoint_step, save_weights

CHECKPOINT = {"global_step": 7, "state_dict": {"w": torch.arange(3.0)}}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new/last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert torch.equal(loaded["state_dict"]["w"], torch.arange(3.0))
    assert checkpoint_step(path) == 7
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    before = path.read_bytes()

    def full_disk(_: Any, target: Path) -> None:
        target.write_bytes(b"half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"global_step": 9}, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


class Payload:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('pickled code ran')",))


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    torch.save({"global_step": 1, "payload": Payload()}, tmp_path / "last.ckpt")
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        checkpoint_step(tmp_path / "last.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_damaged_checkpoint_is_named_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=r"last\.ckpt.*delete it"):
        checkpoint_step(tmp_path / "last.ckpt")


def test_weights_are_saved_as_plain_tensors(tmp_path: Path) -> None:
    network = nn.Linear(2, 3)
    save_weights(tmp_path / "model.pt", network)
    loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.items())


class Dropping(pl.LightningModule):
    """One layer behind dropout, so that its weights depend on the generator's state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.layer(torch.nn.functional.dropout(batch[0], 0.5)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train_dropping(n_steps: int, checkpoint: Path | None = None) -> tuple[Dropping, pl.Trainer]:
    module = Dropping()
    trainer = pl.Trainer(
        max_steps=n_steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[RandomState()],
    )  # fmt: skip
    data = torch.utils.data.TensorDataset(torch.ones(6, 8))
    trainer.fit(module, torch.utils.data.DataLoader(data), ckpt_path=checkpoint, weights_only=True)
    return module, trainer


@pytest.mark.filterwarnings("ignore")
def test_dropout_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, _ = train_dropping(6)
    _, trainer = train_dropping(3)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = train_dropping(6, tmp_path / "half.ckpt")
    torch.testing.assert_close(resumed.layer.weight, whole.layer.weight, rtol=0, atol=0)
