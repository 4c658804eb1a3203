"""One stage trained by several processes, one for each device (`trainer=ddp`): the result of one process with the
same global batch.

Each process takes its share of each global batch, in the order of the stream of crops. Dice is a ratio of sums over
the batch, so the mean of the processes' losses would not be the loss of the batch: the outputs of all processes are
gathered, each computes the loss of the whole batch, and only its own part carries a gradient. Sums come in another
order than in one process, so weights are equal up to rounding, not bit by bit.

Lightning spawns the processes for the training of a stage alone (`start_method="spawn"`). Its usual way runs the whole
command again in each process: preparation, stage 1 and prediction would run, log and write as often as there are
devices. Forking is no way either, since it breaks threads and CUDA that the command has used before.

With `trainer.n_nodes` above 1 the same command runs on each node, with NODE_RANK, MASTER_ADDR and MASTER_PORT set, and
with a run_dir and a work_dir of its own; the nodes meet in the training of each stage only.
"""

import functools
import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler
from multiprocessing import connection
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import ProcessRaisedException

from hngtv.config import TrainerSettings
from hngtv.errors import InputError

PACKAGE = "hngtv"
STEPS_OF_A_SEED = 10**7
"""Above the steps of any training, so that no two seeds share a generator."""


def n_processes() -> int:
    """Processes that train together; 1 outside of such a training."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_batch(own: Tensor) -> Tensor:
    """The tensors (N, ...) of all processes, joined along the batch in their order; only the own part has a gradient.

    Numbers of reduced precision become 32-bit, as the losses have them.
    """
    if n_processes() == 1:
        return own
    own = own.float() if own.is_floating_point() else own
    parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(n_processes())]
    distributed.all_gather(parts, own.detach().contiguous())
    parts[distributed.get_rank()] = own
    return torch.cat(parts)


def own_share(loss: Tensor) -> Tensor:
    """The loss to derive, from that of the gathered batch.

    A process' gradient is that of its own part; the whole is their sum, and DDP takes their mean.
    """
    return loss * n_processes() if n_processes() > 1 else loss


def check_batch_norm(settings: TrainerSettings, module: nn.Module) -> None:
    """Check that several processes can train a network.

    Raises:
        InputError: It has batch normalisation, and they run on CPUs, which cannot share its statistics.
    """
    has_batch_norm = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
    if has_batch_norm and settings.n_processes > 1 and settings.accelerator == "cpu":
        raise InputError(
            "batch normalisation cannot share its statistics between processes on CPUs; set trainer.n_devices=1, or "
            "give the network another one, such as nn.GroupNorm"
        )


def build_strategy(settings: TrainerSettings, module: nn.Module) -> Strategy | str:
    """Lightning's strategy; "auto" for one process.

    Raises:
        InputError: As for `check_batch_norm`.
    """
    check_batch_norm(settings, module)
    if settings.n_processes == 1:
        return "auto"
    # A heat map leaves the auxiliary heads of its network without a loss.
    return _NodeStrategy(start_method="spawn", find_unused_parameters=True)


class _NodeStrategy(DDPStrategy):
    """Writes checkpoints on each node, whose folders need not be shared."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if self.local_rank == 0:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)


class NodeCheckpoint(ModelCheckpoint):
    """Writes into the folder that this node was given; Lightning would take that of the first node for all."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        own = self.dirpath
        super().setup(trainer, pl_module, stage)
        self.dirpath = own


class ProcessSetup(pl.Callback):
    """Makes a spawned process like the one it came from: threads, filters of warnings, and the log, which goes there.

    Args:
        settings: Of the trainer.
        start_step: Where the training goes on, which must be the same on all nodes.
        seed: Of the stage. The generators of dropout get another seed in each process and step, so that no two crops
            of a batch lose the same units, and a training that was killed goes on with the same ones.
    """

    def __init__(self, settings: TrainerSettings, start_step: int, seed: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.n_threads = settings.n_threads
        self.start_step = start_step
        self.seed = seed
        # One for each process: a lock that they shared would be lost with a process that is killed.
        self.pipes = [spawn.Pipe(duplex=False) for _ in range(settings.n_devices)]
        self.filters = list(warnings.filters)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in a spawned process, before Lightning says anything there."""
        self.__dict__.update(state)
        warnings.filters[:] = self.filters  # pyright: ignore[reportIndexIssue]
        for name in ("pytorch_lightning", "lightning.fabric", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.n_threads:
            torch.set_num_threads(self.n_threads)
        package = logging.getLogger(PACKAGE)
        package.setLevel(logging.INFO if trainer.local_rank == 0 else logging.ERROR)
        pipe: Any = self.pipes[trainer.local_rank][1]
        package.addHandler(_PipeHandler(pipe))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        starts: list[Any] = [None] * n_processes()
        distributed.all_gather_object(starts, self.start_step)
        if len(set(starts)) > 1:
            raise InputError(
                f"the nodes go on from different steps ({', '.join(map(str, sorted(set(starts))))}); "
                "delete last.ckpt of this stage in the run_dir and work_dir of each node"
            )

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        torch.manual_seed((self.seed * STEPS_OF_A_SEED + trainer.global_step) * n_processes() + trainer.global_rank)

    @contextmanager
    def watch(self, trainer: pl.Trainer) -> Iterator[None]:
        """What the starting process does meanwhile: pass on the log, and end the others when it is stopped itself.

        Raises:
            InputError: A process met one.
            KeyboardInterrupt: Stopped by SIGTERM.
        """
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP's advice to look for no unused weights
        relay = threading.Thread(target=self._relay, daemon=True)
        relay.start()
        restore = _raise_on_sigterm()
        try:
            yield
        except ProcessRaisedException as error:
            _, is_mistake, message = (
                str(error).rstrip().rpartition(f"\n{InputError.__module__}.{InputError.__name__}: ")
            )
            if is_mistake:
                raise InputError(message) from None
            raise
        finally:
            restore()
            launcher: Any = trainer.strategy.launcher
            launcher.kill(signal.SIGKILL)
            for _, writer in self.pipes:
                writer.close()
            relay.join()

    def _relay(self) -> None:
        """Hand each record to the logger it was made by, in this process, until all writers are closed."""
        readers: list[Any] = [reader for reader, _ in self.pipes]
        while readers:
            for ready in connection.wait(readers):
                reader: Any = ready
                try:
                    record = reader.recv()
                except (EOFError, OSError):  # the end, or a record cut short by a kill
                    readers.remove(reader)
                else:
                    logging.getLogger(record.name).handle(record)


class _PipeHandler(QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send(record)  # pyright: ignore[reportAttributeAccessIssue]


def _raise_on_sigterm() -> Any:
    """Turn SIGTERM into KeyboardInterrupt until the returned function is called; signals reach main threads only."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    return functools.partial(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, stop))
