"""`conf/`: everything that can be chosen composes, validates and builds; a typo says what was meant."""

from pathlib import Path

import pytest

from hngtv import config
from hngtv.commands.entry import BAD_INPUT, COMMANDS, compose, conf_folder, run_command
from hngtv.config import (
    CoarseLocaliser,
    PetRuleLocaliser,
    RunSettings,
    SliceLocaliser,
    UNetSettings,
    parse_settings,
    plain,
)
from hngtv.errors import InputError
from hngtv.localise.rules import PET_RULES
from hngtv.networks.attention_unet import AttentionUNet
from hngtv.networks.build import build_network
from hngtv.networks.slice_network import SliceNetwork
from tests.own_network import install_example

NEEDED = {
    "run": ["run_dir=out", "data.root=cases"],
    "prepare": ["data.root=cases"],
    "import": ["data.root=cases"],
    "check": ["out=check", "cases=cases"],
    "convert": ["out=nnunet", "cases=cases"],
    "phantom": ["out=cases"],
    "embed": ["out=long", "data.root=cases"],
    "predict": ["model=run", "out=masks", "cases=cases"],
    "ensemble": ["runs=runs", "out=ensemble"],
    "evaluate": ["predictions=masks", "targets=cases"],
    "compare": ["runs=runs"],
    "localise": ["run_dir=out", "data.root=cases"],
    "robustness": ["model=run"],
    "search": ["out=search", "data.root=cases"],
    "export": ["model=run", "out=package"],
    "challenge": ["year=2026"],
}
"""What a user must give."""
GROUPS = {
    folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
    for folder in sorted(conf_folder().iterdir())
    if folder.is_dir()
}
EXPERIMENTS = GROUPS["experiment"]
ARMS = [name for name in EXPERIMENTS if name not in ("zhu2020", "two_stage_ag_long")]
"""Those on equal terms."""
CHOICES = {group: options for group, options in GROUPS.items() if group not in ("experiment", "launcher", "sweep")}
N_ROUNDS = max(map(len, CHOICES.values()))
"""Compositions in which every option of every group has its turn."""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_settings(*overrides: str) -> RunSettings:
    return parse_settings(RunSettings, compose("run", [*NEEDED["run"], *overrides]))


def test_every_command_has_its_root_and_every_root_its_command() -> None:
    assert {file.stem for file in conf_folder().glob("*.yaml")} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_root_composes_and_validates(name: str) -> None:
    tree = compose(name, NEEDED.get(name, []))
    kind = getattr(config, COMMANDS[name].settings)
    settings = parse_settings(kind, tree)
    assert parse_settings(kind, plain(settings)) == settings


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_missing_value_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = NEEDED[name][0].partition("=")[0]
    others = [value for value in NEEDED[name] if not value.startswith(f"{key}=")]
    assert run_command([name, *others]) == BAD_INPUT
    assert key in capsys.readouterr().err


@pytest.mark.parametrize("turn", range(N_ROUNDS))
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_option_with_every_experiment(
    experiment: str, turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [f"{group}={options[turn % len(options)]}" for group, options in CHOICES.items()]
    if "network=own" in chosen:
        install_example(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        chosen.append("network.entry_point=small")
    if "trainer=ddp" in chosen:
        chosen.append("optimiser.batch_size=2")
    settings = run_settings(f"experiment={experiment}", *chosen, "data.root=cases")
    assert settings.arm == experiment
    networks = [settings.network]
    if isinstance(settings.localiser, CoarseLocaliser):
        networks.append(settings.localiser.network)
    for network in networks:
        built = build_network(network, in_channels=2, out_channels=3)
        assert isinstance(built, SliceNetwork) == (getattr(network, "spatial_dims", 3) == 2)
        built = built.network if isinstance(built, SliceNetwork) else built
        assert isinstance(built, AttentionUNet) == isinstance(network, UNetSettings)
        if isinstance(built, AttentionUNet):
            assert bool(built.gates) == (network.name == "attention_unet")


@pytest.mark.parametrize("experiment", ARMS)
def test_experiment_is_what_its_name_says(experiment: str) -> None:
    settings = run_settings(f"experiment={experiment}")
    localiser = {"single": "whole", "two": "coarse", "oracle": "oracle"}[experiment.split("_")[0]]
    assert settings.localiser.name == localiser
    assert settings.network.name == ("attention_unet" if experiment.endswith("_ag") else "unet")


def test_arms_differ_in_localiser_roi_and_gates_alone() -> None:
    trees = [plain(run_settings(f"experiment={name}")) for name in ARMS]
    for key in trees[0]:
        if key not in ("arm", "localiser", "roi", "network"):
            assert all(tree[key] == trees[0][key] for tree in trees), key
    networks = [{k: v for k, v in tree["network"].items() if "gate" not in k and k != "name"} for tree in trees]
    assert all(network == networks[0] for network in networks)
    rois = {name: tree["roi"]["crop_voxels"] for name, tree in zip(ARMS, trees, strict=True)}
    assert len({tuple(size) for size in rois.values()}) == 1


def test_arm_for_long_scans_is_the_gated_two_stage_arm() -> None:
    """It differs in stage 1's data, the ROI, the loss and the clean-up alone, and there in no key but these."""
    plain_arm, long_arm = (plain(run_settings(f"experiment={name}")) for name in ("two_stage_ag", "two_stage_ag_long"))
    assert {key for key in plain_arm if plain_arm[key] != long_arm[key]} == {
        "arm", "localiser", "roi", "loss", "inference",
    }  # fmt: skip
    changed = {
        group: {key for key, value in long_arm[group].items() if value != plain_arm[group][key]}
        for group in ("localiser", "roi", "loss", "inference")
    }
    assert changed == {
        "localiser": {"n_inner_folds", "budget_share", "thresholds", "min_covered", "min_peak"},
        "roi": {"join_mm", "margin_mm", "foreground_share"},
        "loss": {"absent_share"},
        "inference": {"min_gtvp_share"},
    }


def test_zhu2020_keeps_whole_slices_for_a_network_of_slices() -> None:
    settings = run_settings("experiment=zhu2020")
    assert isinstance(settings.localiser, SliceLocaliser)
    assert isinstance(settings.network, UNetSettings)
    assert not settings.localiser.network.gated
    assert (settings.localiser.in_plane, settings.roi.shape, settings.network.spatial_dims) == ("whole", "slab", 2)
    assert settings.network.total_stride[2] == 1
    assert settings.error_budget
    others = plain(run_settings("experiment=single_stage_unet"))
    for key in ("loss", "optimiser", "budget", "inference", "intensity"):
        assert plain(settings)[key] == others[key], key


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("bugdet.steps=3", ["bugdet", "budget"]),
        ("budget.setps=3", ["budget.setps", "steps"]),
        ("+budget.setps=3", ["budget.setps", "steps"]),
        ("+localiser.treshold=0.5", ["localiser.treshold", "thresholds"]),
        ("network=unett", ["network", "unett", "unet"]),
        ("experiment=two_stage", ["two_stage", "two_stage_ag"]),
        ("netwrok=unet", ["netwrok", "network"]),
        ("network.norm=batchh", ["network.norm", "batch", "batchh"]),
        ("budget.cpu_s=10", ["budget", "steps", "cpu_s"]),
        ("budget.steps=0", ["budget.steps", "0"]),
        ("network.fusion=pet_gatd", ["network.fusion", "pet_gated", "pet_gatd"]),
        ("localiser.network.fusion=pet_gated", ["localiser.network", "fusion=pet_gated", "attention_unet"]),
        ("augment.pet_dropout=2", ["augment.pet_dropout", "2"]),
        ("localiser.thresholds=[2]", ["localiser.thresholds", "2"]),
        ("fold=9", ["fold", "9", "4"]),
        ("fold=x", ["fold", "x", "all"]),
        ("network.widths=[8]", ["network.widths"]),
        ("network.strides=[[2,2,1]]", ["network", "strides", "3"]),
        ("network.spatial_dims=4", ["network.spatial_dims", "4"]),
        ("augment.rotation_deg=[1,2]", ["augment.rotation_deg", "3 values"]),
        ("augment.rotation_deg=-1", ["augment.rotation_deg", "-1"]),
        ("roi.crop_voxels=[1,2]", ["roi.crop_voxels", "3"]),
        ("roi.shape=fixed", ["roi", "size_mm", "shape=fixed"]),
        ("roi.size_mm=[9,9,9]", ["roi", "size_mm", "shape=fixed"]),
        ("roi.shape=slap", ["roi.shape", "slap", "slab"]),
        ("roi.jitter_mm=mached", ["roi.jitter_mm", "mached", "matched"]),
        ("roi.join_mm=-1", ["roi.join_mm", "-1"]),
        ("localiser.mass=0", ["localiser.mass", "0"]),
        ("intensity.ct_windows_hu=[[240,-160]]", ["intensity", "ct_windows_hu"]),
        ("seed=-1", ["seed", "-1"]),
        ("inference.flip_axes=[x,w]", ["inference.flip_axes", "w"]),
        ("fold", ["fold"]),
        ("network.widths=[a]", ["network.widths", "'a'"]),
        ("run_dri=x", ["run_dri", "run_dir"]),
    ],
)
def test_mistake_fails_with_its_key(override: str, told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["experiment=two_stage_ag", *NEEDED["run"], override]
    assert run_command(["run", *arguments]) == BAD_INPUT
    error = capsys.readouterr().err
    assert all(word in error for word in told), error
    assert "Traceback" not in error
    assert "localiser.coarse" not in error
    assert error.count("\n") == 1, error


@pytest.mark.parametrize(
    ("network", "override", "told"),
    [
        ("segresnet", "network.init_filtres=8", "unknown key network.init_filtres; did you mean network.init_filters"),
        ("swinunetr", "network.feature_size=18", "network.feature_size"),
        ("dynunet", "+network.blocks_dwn=[1]", "unknown key network.blocks_dwn; did you mean res_block?"),
        ("own", "seed=1", "network.entry_point is missing"),
        ("own", "network.entry_point=lost", "network: entry_point: expected one of the installed networks"),
    ],
)
def test_mistake_in_a_peer_fails_with_its_key(
    network: str, override: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", *NEEDED["run"], f"network={network}", override]) == BAD_INPUT
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1, error


def test_arguments_of_an_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_example(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for override in ("network.arguments={width:24}", "+network.arguments.width=24"):
        network = run_settings("network=own", "network.entry_point=small", override).network
        assert plain(network)["arguments"] == {"width": 24}


@pytest.mark.parametrize("widths", [[], [8]])
def test_mistake_in_a_file_fails_with_its_key(widths: list[int]) -> None:
    tree = compose("run", NEEDED["run"])
    tree["network"] |= {"widths": widths, "wdiths": [8, 16]}
    with pytest.raises(InputError, match=r"network\.wdiths; did you mean widths"):
        parse_settings(RunSettings, tree)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("network.n_gates=0", "needs n_gates of 1 or more, got 0; take network=unet"),
        ("network.widths=[8,16]", r"needs at least 3 widths .*, got 2; add a level, or take network=unet"),
    ],
)
def test_gated_network_has_gates(override: str, told: str) -> None:
    with pytest.raises(InputError, match=f"network: attention_unet {told}"):
        run_settings("network=attention_unet", override)


@pytest.mark.parametrize("fusion", ["early", "stems", "pet_gated", "ct_only", "pet_only"])
@pytest.mark.parametrize("network", ["unet", "attention_unet"])
def test_every_fusion_builds_where_it_can(network: str, fusion: str) -> None:
    chosen = [f"network={network}", f"network.fusion={fusion}"]
    if (network, fusion) == ("unet", "pet_gated"):
        with pytest.raises(InputError, match="network: fusion=pet_gated needs gates"):
            run_settings(*chosen)
        return
    built = build_network(run_settings(*chosen).network, in_channels=2, out_channels=3)
    assert isinstance(built, AttentionUNet)
    assert built.fusion == fusion


@pytest.mark.parametrize(
    ("overrides", "copes"),
    [
        ([], False),
        (["augment.pet_dropout=0.3"], True),
        (["network.fusion=ct_only"], False),
        (["localiser.network.fusion=ct_only"], False),
        (["network.fusion=ct_only", "localiser.network.fusion=ct_only"], True),
        (["localiser=whole", "network.fusion=ct_only"], True),
        (["localiser=slices", "network.fusion=ct_only"], False),
        (["localiser=slices", "augment.pet_dropout=0.3"], True),
        (["localiser=fixed", "network.fusion=ct_only"], True),
        (["localiser=nvauto", "network.fusion=ct_only"], False),
        (["localiser=nvauto", "augment.pet_dropout=0.3"], False),
    ],
)
def test_pet_may_be_missing_where_no_stage_looks_at_it_or_all_learned_without(
    overrides: list[str], copes: bool
) -> None:
    assert run_settings("experiment=two_stage_ag", *overrides).copes_without_pet == copes


@pytest.mark.parametrize("key", ["network.fusion", "localiser.network.fusion"])
def test_pet_alone_cannot_be_dropped(key: str) -> None:
    with pytest.raises(InputError, match=r"augment\.pet_dropout"):
        run_settings("experiment=two_stage_ag", f"{key}=pet_only", "augment.pet_dropout=0.3")


@pytest.mark.parametrize("stage", ["coarse", "slices"])
def test_settings_of_runs_before_the_roi_policy_give_one_tight_roi(stage: str) -> None:
    settings = run_settings("experiment=two_stage_ag", f"localiser={stage}")
    tree = plain(settings)
    for key in ("shape", "size_mm", "join_mm"):
        del tree["roi"][key]
    for key in {"mass", "slice_margin_mm", "top_k"} & set(tree["localiser"]):
        del tree["localiser"][key]
    assert parse_settings(RunSettings, tree) == settings


@pytest.mark.parametrize("name", sorted(PET_RULES))
def test_every_pet_rule_has_its_settings(name: str) -> None:
    localiser = run_settings(f"localiser={name}").localiser
    assert isinstance(localiser, PetRuleLocaliser)
    assert localiser.name == name


def test_settings_of_runs_before_fusion_was_a_setting_are_early() -> None:
    tree = plain(run_settings("experiment=two_stage_ag"))
    del tree["network"]["fusion"], tree["localiser"]["network"]["fusion"], tree["augment"]["pet_dropout"]
    assert parse_settings(RunSettings, tree) == run_settings("experiment=two_stage_ag")
