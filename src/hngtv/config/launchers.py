"""Settings of the launchers: what runs the jobs of a sweep, and how many at once."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from hngtv.config.values import Count, NonNegative, Positive, settings_group


@settings_group
class BasicLauncher:
    """One job after another."""

    name: Literal["basic"]


@settings_group
class JoblibLauncher:
    """`n_jobs` at once on this machine; -1: as many as there are processors."""

    name: Literal["joblib"]
    n_jobs: Count | Literal[-1]


@settings_group
class SubmititLocalLauncher:
    """As on Slurm, but on this machine, `n_jobs` at once."""

    name: Literal["submitit_local"]
    n_jobs: Count
    timeout_min: Count


@settings_group
class SubmititSlurmLauncher:
    """Each job a job of Slurm, `n_jobs` at once at most.

    `additional` are further parameters of sbatch; `setup` are shell lines that run before a job.
    """

    name: Literal["submitit_slurm"]
    n_jobs: Count
    partition: str | None
    timeout_min: Count
    cpus_per_task: Count
    gpus_per_node: Annotated[int, Field(ge=0)]
    mem_gb: Positive | None
    setup: tuple[str, ...]
    additional: dict[str, JsonValue] | None


@settings_group
class RayLauncher:
    """Each job a task of Ray, which needs these processors and GPUs; `address` is that of a running cluster."""

    name: Literal["ray"]
    address: str | None
    cpus_per_job: Positive
    gpus_per_job: NonNegative


LauncherSettings = Annotated[
    BasicLauncher | JoblibLauncher | SubmititLocalLauncher | SubmititSlurmLauncher | RayLauncher,
    Field(discriminator="name"),
]


@settings_group
class SweepSettings:
    """What runs the jobs of `hngtv run -m`."""

    launcher: LauncherSettings
