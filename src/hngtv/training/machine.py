"""What the machine at hand can train, and in which precision."""

from typing import Any

import torch

from hngtv.config import OwnNetworkSettings, RunSettings, TrainerSettings
from hngtv.errors import InputError
from hngtv.networks.build import build_network
from hngtv.training.processes import check_batch_norm


def check_machine(settings: RunSettings) -> None:
    """Check what this machine, and an own network, lack for a training, before any work is done.

    Raises:
        InputError: Too few GPUs, no TensorBoard where it is to log, or an own network that several processes on CPUs
            cannot train.
    """
    trainer, n_found = settings.trainer, torch.cuda.device_count()
    if trainer.accelerator == "gpu" and n_found < trainer.n_devices:
        raise InputError(
            f"trainer.n_devices is {trainer.n_devices}, but PyTorch finds {n_found} GPU(s) here; set trainer=cpu or "
            "fewer devices, or mend the driver"
        )
    if settings.logger.name == "tensorboard":
        from hngtv.training.tensorboard_logger import check_tensorboard

        check_tensorboard()
    if trainer.n_processes > 1:
        _check_own_networks(settings)


def _check_own_networks(settings: RunSettings) -> None:
    """Build each, since the settings do not tell what layers it has."""
    for network in (settings.network, getattr(settings.localiser, "network", None)):
        if isinstance(network, OwnNetworkSettings):
            check_batch_norm(settings.trainer, build_network(network, settings.intensity.n_channels, out_channels=2))


def choose_precision(settings: TrainerSettings) -> Any:
    """Lightning's precision: as set, or bf16 where the processor computes in it.

    Source of the rule: our measurement; without such units bf16 is emulated, tens of times slower on a CPU.
    """
    if settings.precision != "auto":
        return settings.precision
    if has_bf16_units(settings.accelerator):
        return "bf16-mixed"
    return "16-mixed" if settings.accelerator == "gpu" else "32-true"


def has_bf16_units(accelerator: str) -> bool:
    """Whether the processor, or the GPU, computes in bf16 rather than emulating it."""
    if accelerator == "gpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
