"""The words of a sweep become jobs with names and folders of their own; each mistake is told before they begin."""

from pathlib import Path

import pytest

from hngtv.commands.entry import BAD_INPUT, conf_folder, run_command
from hngtv.commands.job import Job
from hngtv.commands.sweep_jobs import MAX_FOLDER_NAME, build_jobs, folder_name, read_words
from hngtv.run_folder import write_json

SWEEPS = sorted(file.stem for file in (conf_folder() / "sweep").glob("*.yaml"))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cases").mkdir()


def jobs_of(*words: str) -> list[Job]:
    return build_jobs(read_words(["data.root=cases", *words]))


def test_every_combination_is_a_job_in_a_folder_of_its_own(tmp_path: Path) -> None:
    jobs = jobs_of("experiment=single_stage_ag,two_stage_ag", "fold=0,1", "seed=3,4", "hydra.sweep.dir=out")
    assert [str(job) for job in jobs][:3] == [
        "single_stage_ag fold 0 seed 3",
        "single_stage_ag fold 0 seed 4",
        "single_stage_ag fold 1 seed 3",
    ]
    assert len({job.run_dir for job in jobs}) == 8
    assert jobs[-1].run_dir == tmp_path / "out/two_stage_ag/fold_1_seed_4"
    assert {"fold=1", "seed=4", "arm='two_stage_ag'", f"run_dir='{jobs[-1].run_dir}'"} <= set(jobs[-1].overrides)


def test_swept_settings_are_part_of_the_name_of_the_arm() -> None:
    jobs = jobs_of("experiment=single_stage_ag", "network.n_gates=1,2", "augment=none,upright", "budget.steps=9")
    assert jobs[1].arm == "single_stage_ag network.n_gates=1 augment=upright"
    assert jobs[1].run_dir.parent.name == "single_stage_ag_network.n_gates=1_augment=upright"
    assert "arm='single_stage_ag network.n_gates=1 augment=upright'" in jobs[1].overrides


def test_lists_are_values_too() -> None:
    jobs = jobs_of("experiment=single_stage_ag", "network.widths=[4,8,8],[8,8,16]")
    assert [job.arm for job in jobs] == [
        "single_stage_ag network.widths=[4,8,8]",
        "single_stage_ag network.widths=[8,8,16]",
    ]
    assert len({job.run_dir for job in jobs}) == 2


@pytest.mark.parametrize("arm", ["a/b", "..", "ä b", "x" * 500, "a'b\"c", ""])
def test_name_of_a_folder_is_one_plain_word(arm: str) -> None:
    name = folder_name(arm)
    assert Path(name).name == name
    assert name[0] != "."
    assert len(name.encode()) <= MAX_FOLDER_NAME + 9


def test_long_names_stay_apart() -> None:
    assert folder_name("x" * 500) != folder_name("x" * 501)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_named_sweep_is_one(name: str) -> None:
    jobs = jobs_of(f"sweep={name}")
    assert len(jobs) > 1
    assert len({(job.arm, job.fold) for job in jobs}) == len(jobs)


def test_what_is_typed_wins_over_a_named_sweep_and_sweeps_are_combined() -> None:
    jobs = jobs_of("sweep=arms,folds", "experiment=two_stage_ag", "seed=1,2")
    assert [(job.arm, job.fold, job.seed) for job in jobs] == [
        ("two_stage_ag", fold, seed) for fold in range(5) for seed in (1, 2)
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["experiment=two_stage_ag,two_stage"], ["experiment", "two_stage"]),
        (["fold=0,1", "bugdet.steps=1"], ["bugdet", "budget"]),
        (["fold=0,9"], ["fold is 9", "0 to 4"]),
        (["network=attention_unet,unet", "network.fusion=pet_gated"], ["unet", "pet_gated"]),
        (["fold=1,1"], ["2 jobs", "fold_1_seed_0"]),
        (["run_dir=x", "fold=0,1"], ["run_dir=x", "hydra.sweep.dir"]),
        (["hydra.job.num=2", "fold=0,1"], ["hydra.job.num", "hydra.sweep.dir"]),
        (["hydra.sweep.dir=", "fold=0,1"], ["hydra.sweep.dir", "folder"]),
        (["sweep=arm"], ["sweep is 'arm'", "arms"]),
        (["sweep=arms,gates"], ["arms", "gates", "experiment"]),
        (["launcher=jobblib", "fold=0,1"], ["launcher", "jobblib", "joblib"]),
        (["launcher=joblib", "launcher.n_job=2", "fold=0,1"], ["launcher.n_job", "n_jobs"]),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0", "fold=0,1"], ["launcher", "n_jobs", "0"]),
        (["data.root=lost", "fold=0,1"], ["data.root", "lost", "does not exist"]),
        (["fold=interval(0,1)"], ["fold=interval(0,1)", "list of values"]),
        (["experiment=glob(*)"], ["experiment", "glob(*)"]),
        (["seed=glob(*)"], ["seed=glob(*)", "list of values"]),
        (["data.train_share=0,1"], ["data.train_share", "0"]),
    ],
)
def test_mistake_ends_the_sweep_before_it_begins(
    words: list[str], told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", "-m", "data.root=cases", *words]) == BAD_INPUT
    error = capsys.readouterr().err
    assert all(word in error for word in told), error
    assert error.count("\n") == 1, error
    assert [path.name for path in tmp_path.iterdir()] == ["cases"]


def test_folder_of_another_run_is_found_before_the_first_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs/custom/fold_1_seed_0"
    folder.mkdir(parents=True)
    write_json(folder / "settings.json", {"seed": 1})
    assert run_command(["run", "-m", "data.root=cases", "fold=0,1"]) == BAD_INPUT
    assert "other settings" in capsys.readouterr().err
    assert not (tmp_path / "runs/results.csv").exists()


@pytest.mark.parametrize("word", ["sweep=arms", "launcher=joblib"])
def test_words_of_a_sweep_need_a_sweep(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", "data.root=cases", "run_dir=x", word]) == BAD_INPUT
    assert "hngtv run -m" in capsys.readouterr().err
