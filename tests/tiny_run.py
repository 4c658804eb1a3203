"""`hngtv run` made tiny: seconds on one core."""

from pathlib import Path

import torch

from hngtv.commands.entry import compose
from hngtv.config import CoarseLocaliser, RunSettings, parse_settings, plain
from hngtv.networks.build import build_network
from hngtv.run_folder import RunFolder, write_json
from hngtv.training.checkpoint import save_weights

TINY_NETWORK = "{name: attention_unet, widths: [4, 8, 8], norm: instance, deep_supervision: auxiliary, n_gates: 1}"
NETWORKS = {"unet": "unet", "ag": "attention_unet", "zhu2020": "unet_2d"}
"""By the last part of an experiment's name."""
TINY_PEERS = {
    "monai_attention_unet": {"widths": "[4, 8, 8]"},
    "segresnet": {"init_filters": 4, "blocks_down": "[1, 1, 1]", "blocks_up": "[1, 1]"},
    "dynunet": {
        "widths": "[4, 8, 8]",
        "kernel_sizes": "[[3, 3, 1], [3, 3, 3], [3, 3, 3]]",
        "strides": "[[1, 1, 1], [2, 2, 1], [2, 2, 2]]",
        "deep_supervision_heads": 1,
    },
    "swinunetr": {"depths": "[1, 1, 1, 1]", "window_size": 2},
    "own": {"entry_point": "small", "arguments": "{width: 4}", "total_stride": 4},
}
"""What makes the networks of others tiny; `own` is the one of `tests.own_network`."""


def tiny_run(root: Path, folder: Path, experiment: str = "two_stage_ag", **changes: object) -> list[str]:
    """Command line of a run on the cohort in `root`; everything it writes goes below `folder`.

    Changes are further settings, with `__` for the dot in a key.
    """
    settings = {
        "experiment": experiment,
        "data.root": root,
        "run_dir": folder / "run",
        "work_dir": folder / "work",
        "data.spacing_mm": "[5, 5, 6]",
        "data.coarse_spacing_mm": "[10, 10, 12]",
        "data.n_folds": 2,
        "network": NETWORKS[experiment.rpartition("_")[2]],
        "network.widths": "[4, 8, 8]",
        "roi.crop_voxels": "[16, 16, 12]",
        "optimiser.batch_size": 1,
        "budget.steps": 12,
        "logger": "csv",
    }
    if experiment == "zhu2020":
        settings |= {"localiser.crop_voxels": "[16, 16]", "localiser.batch_size": 4, "localiser.budget_share": 0.5}
    if experiment.startswith("two_stage"):
        settings |= {"localiser.network.widths": "[4, 8, 8]", "localiser.budget_share": 0.5}
    settings |= {key.replace("__", "."): value for key, value in changes.items()}
    if settings["network"] in TINY_PEERS:
        del settings["network.widths"]
        settings = {f"network.{key}": value for key, value in TINY_PEERS[str(settings["network"])].items()} | settings
    return ["run", *(f"{key}={value}" for key, value in settings.items())]


def write_untrained_run(root: Path, out: Path, experiment: str = "two_stage_ag", **changes: object) -> Path:
    """A run folder as a finished `tiny_run` leaves it, with random weights; returns it."""
    folder = RunFolder(out)
    overrides = tiny_run(root, folder.root, experiment, **changes)[1:]
    settings = parse_settings(RunSettings, compose("run", overrides))
    write_json(folder.settings, plain(settings))
    torch.manual_seed(0)
    save_weights(folder.fine / "model.pt", build_network(settings.network, settings.intensity.n_channels, 3))
    write_json(folder.fine / "training.json", {"n_classes": 3, "crop_voxels": [16, 16, 12]})
    if isinstance(settings.localiser, CoarseLocaliser):
        for inner in range(settings.localiser.n_inner_folds):
            network = build_network(settings.localiser.network, settings.intensity.n_channels, 2)
            save_weights(folder.coarse / f"inner_{inner}/model.pt", network)
        write_json(folder.coarse_threshold, {"threshold": settings.localiser.thresholds[0]})
    return folder.root
