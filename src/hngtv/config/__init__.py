"""Frozen, validated settings: one dataclass per group of `conf/` and per command.

Hydra composes a tree of plain values; `parse_settings` turns it into one of these, or names the key that is wrong.
"""

from hngtv.config.commands import (
    BenchmarkSettings,
    CompareSettings,
    DemoSettings,
    EvaluateSettings,
    ImportSettings,
    PhantomSettings,
    PredictSettings,
    PrepareSettings,
)
from hngtv.config.localisers import (
    AttentionBoxSettings,
    CoarseLocaliser,
    Localiser,
    OracleLocaliser,
    SliceLocaliser,
    SonoNetSettings,
    TrainedLocaliser,
    WholeLocaliser,
)
from hngtv.config.networks import (
    OWN_NETWORKS,
    DynUNetSettings,
    MonaiAttentionUNetSettings,
    NetworkSettings,
    OwnNetworkSettings,
    SegResNetSettings,
    SwinUNETRSettings,
    UNetSettings,
)
from hngtv.config.parse import parse_network, parse_settings, plain
from hngtv.config.run import (
    AugmentSettings,
    BudgetSettings,
    DataSettings,
    InferenceSettings,
    IntensitySettings,
    LoggerSettings,
    LossSettings,
    OptimiserSettings,
    RoiSettings,
    RunSettings,
    TrainerSettings,
)
from hngtv.config.values import OnEmpty

__all__ = [
    "OWN_NETWORKS",
    "AttentionBoxSettings",
    "AugmentSettings",
    "BenchmarkSettings",
    "BudgetSettings",
    "CoarseLocaliser",
    "CompareSettings",
    "DataSettings",
    "DemoSettings",
    "DynUNetSettings",
    "EvaluateSettings",
    "ImportSettings",
    "InferenceSettings",
    "IntensitySettings",
    "Localiser",
    "LoggerSettings",
    "LossSettings",
    "MonaiAttentionUNetSettings",
    "NetworkSettings",
    "OnEmpty",
    "OptimiserSettings",
    "OracleLocaliser",
    "OwnNetworkSettings",
    "PhantomSettings",
    "PredictSettings",
    "PrepareSettings",
    "RoiSettings",
    "RunSettings",
    "SegResNetSettings",
    "SliceLocaliser",
    "SonoNetSettings",
    "SwinUNETRSettings",
    "TrainedLocaliser",
    "TrainerSettings",
    "UNetSettings",
    "WholeLocaliser",
    "parse_network",
    "parse_settings",
    "plain",
]
