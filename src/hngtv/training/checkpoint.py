"""Checkpoints and weights, written whole or not at all and read without pickled code."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import nn

from hngtv.errors import InputError
from hngtv.run_folder import atomic_path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, through a temporary file in the same folder.

    Lightning stages in the system's temporary folder, and from there a move to another file system is no rename: a
    kill or a full disk then destroys the last good checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with atomic_path(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


class RandomState(pl.Callback):
    """Keeps the state of torch's generators in the checkpoint, so that dropout goes on where it was."""

    def __init__(self) -> None:
        self.restored: dict[str, torch.Tensor] | None = None

    def state_dict(self) -> dict[str, torch.Tensor]:
        state = {"cpu": torch.get_rng_state()}
        return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})

    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        self.restored = state_dict

    def on_train_batch_start(self, *_: Any) -> None:
        if self.restored is None:
            return
        torch.set_rng_state(self.restored["cpu"].cpu())
        if "cuda" in self.restored and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.restored["cuda"].cpu())
        self.restored = None


def save_weights(path: Path, network: nn.Module) -> None:
    with atomic_path(path) as temporary:
        torch.save({name: value.cpu() for name, value in network.state_dict().items()}, temporary)


def checkpoint_step(path: Path) -> int:
    """Optimiser steps done by a checkpoint.

    Raises:
        InputError: The file is not a readable checkpoint.
    """
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception as error:
        raise InputError(f"{path} is not a readable checkpoint ({error}); delete it to train this stage anew") from None
