"""From the command line to jobs, configs and their signatures; and that none of it imports anything heavy."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from aelab import compose, declared, grid
from aelab.compose import CONF, signature

ROOT = Path(__file__).parents[1]


def config(*overrides, dirs=(CONF,)):
    with compose.session():
        return compose.compose(list(overrides), list(dirs))


def jobs(*overrides, dirs=(CONF,)):
    with compose.session():
        return grid.jobs(list(overrides), list(dirs))


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    monkeypatch.delenv("AELAB_DATA_DIR", raising=False)


# ---- one config


def test_config_is_resolved_and_knows_its_choices():
    cfg = config("model=conv_ae", "corruption=[masking,gaussian]", "seed=7")
    assert cfg.choices.model == "conv_ae"
    assert cfg.choices.corruption == "masking+gaussian"
    assert list(cfg.corruption) == ["level", "masking", "gaussian"]
    assert cfg.dataset.seed == 7  # an interpolation
    assert "${" not in OmegaConf.to_yaml(cfg)
    assert "hydra" not in cfg


def test_corruption_level_goes_to_every_step():
    cfg = config("corruption=[masking,gaussian]", "corruption.level=0.1")
    assert (cfg.corruption.masking.level, cfg.corruption.gaussian.level) == (0.1, 0.1)
    cfg = config("corruption=[masking,gaussian]", "corruption.gaussian.level=0.1")
    own = OmegaConf.load(CONF / "corruption" / "masking.yaml").masking.level
    assert (cfg.corruption.masking.level, cfg.corruption.gaussian.level) == (own, 0.1)


def test_helper_values_are_taken_over():
    assert config("dataset=npz", "path=a.npz").dataset.path == "a.npz"


def test_environment_sets_folders_and_store(monkeypatch):
    monkeypatch.setenv("AELAB_DATA_DIR", "/data")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    cfg = config()
    assert (cfg.data_dir, cfg.dataset.data_dir, cfg.tracking.uri) == ("/data", "/data", "http://there")
    assert config("data_dir=/mine").dataset.data_dir == "/mine"


@pytest.mark.parametrize("name", compose.choices("debug", [CONF]))
def test_debug_overlays_change_a_run_and_keep_its_choices(name):
    overlay = OmegaConf.load(CONF / "debug" / f"{name}.yaml")
    cfg, plain = config("model=conv_ae", f"debug={name}"), config("model=conv_ae")
    assert OmegaConf.merge(cfg, overlay) == cfg  # all that it says holds
    assert cfg != plain
    assert (cfg.model, cfg.dataset._target_) == (plain.model, plain.dataset._target_)


def test_a_task_chooses_the_other_groups_and_what_is_typed_beats_it():
    cfg = config("task=anomaly")
    assert (cfg.choices.dataset, cfg.choices.model, cfg.choices.score) == ("creditcard", "dense_ae", "mahalanobis")
    assert (cfg.choices.corruption, cfg.fit.batch_size, cfg.fit.precision) == ("", 256, "float32")
    assert cfg.preparation._target_ == "aelab.preparation.standard"
    typed = config("score=max", "model=knn", "fit.epochs=2", "preparation=robust", "task=anomaly", "metric=[roc_auc]")
    assert (typed.choices.score, typed.choices.model, typed.fit.epochs) == ("max", "knn", 2)
    assert (typed.choices.preparation, list(typed.metric)) == ("robust", ["roc_auc"])
    assert not config().keys() & {"score", "preparation", "threshold"}
    assert not config().choices.keys() & {"score", "preparation", "threshold"}


def test_a_vae_brings_its_loss_along():
    assert "kl" in config("task=anomaly", "model=vae").loss
    assert "kl" not in config("task=anomaly").loss
    assert set(config("task=anomaly", "model=vae", "loss=[mse]").loss) == {"mse", "kl"}
    assert set(config("task=anomaly", "model=vae", "loss=[mse,kl]").loss) == {"mse", "kl"}


def test_detectors_take_the_seed_of_the_run():
    assert config("task=anomaly", "model=isolation_forest", "seed=7").model.seed == 7


def test_what_is_typed_beats_an_overlay():
    assert config("debug=fast", "fit.epochs=7").fit.epochs == 7


@pytest.mark.parametrize("name", compose.choices("experiment", [CONF]))
def test_experiments_compose(name):
    typed = ["model.run=."] if name == "sweep_similarity" else []  # of which finished run, only the user can say
    assert config(f"experiment={name}", *typed).choices.experiment == name


TASKS = {
    "image": "denoise",
    "table": "anomaly",
    "ratings": "recommend",
    "interactions": "recommend",
    "items": "recommend",
    "pairs": "rating",
    "vectors": "similarity",
    "text": "language",
    "labelled images": "classify",
    "masked image": "inpaint",
}
ASKED = {
    "csv": ["path=a", "label=b", "positive=c"],
    "npz": ["path=a"],
    "images": ["path=a"],
    "text": ["path=a"],
    "ratings": ["path=a"],
    "vectors": ["model.run=a"],
    "similarity": ["model.run=a"],
}
"""Values that a choice, or a group or task of that name, has none for."""


@pytest.mark.parametrize(
    ("group", "name"),
    [
        (group, name)
        for group in compose.groups([CONF])
        if group != "experiment"
        for name in compose.choices(group, [CONF])
    ],
)
def test_every_choice_composes(group, name):
    target = compose.target(compose.choices(group, [CONF])[name])
    kinds = (target and declared.kinds(group, target)) or ("image",)
    task = "similarity" if group == "similarity" else TASKS[kinds[0]] if group != "task" else name
    more = ASKED.get(name, ASKED.get(task, []))
    assert name in (config(f"task={task}", f"{group}={name}", *more).choices[group] or name).split("+")


def test_a_users_experiment_and_its_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, width in (("conf", 3), ("given", 5)):
        (tmp_path / folder / "experiment").mkdir(parents=True)
        (tmp_path / folder / "experiment" / "mine.yaml").write_text(
            "# @package _global_\ndefaults:\n  - override /model: conv_ae\n  - override /loss: [mse]\n"
            f"model:\n  bottleneck: {width}\nfit:\n  epochs: 2\n"
        )
    dirs = compose.folders([])
    assert dirs == [tmp_path / "conf", CONF]
    cfg = config("experiment=mine", "fit.batch_size=9", dirs=dirs)
    assert (cfg.model.bottleneck, cfg.fit.epochs, cfg.fit.batch_size, list(cfg.loss)) == (3, 2, 9, ["mse"])
    dirs = compose.folders(["given"])
    assert dirs == [tmp_path / "given", tmp_path / "conf", CONF]
    assert config("experiment=mine", dirs=dirs).model.bottleneck == 5
    assert jobs("experiment=glob(m*)", "seed=1,2", dirs=dirs) == [
        ["experiment=mine", "seed=1"],
        ["experiment=mine", "seed=2"],
    ]


def test_our_own_folder_is_not_taken_for_a_users(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert compose.folders([]) == [CONF]
    assert compose.search_path([CONF]) == []


# ---- sweeps


def test_grid_varies_the_last_fastest():
    assert jobs("seed=1,2", "model=median,tv", "fit.epochs=3") == [
        ["seed=1", "model=median", "fit.epochs=3"],
        ["seed=1", "model=tv", "fit.epochs=3"],
        ["seed=2", "model=median", "fit.epochs=3"],
        ["seed=2", "model=tv", "fit.epochs=3"],
    ]


def test_glob_is_every_choice():
    assert jobs("model=glob(*)") == [[f"model={name}"] for name in compose.choices("model", [CONF])]
    assert jobs("model=glob(conv_ae*)") == [["model=conv_ae"], ["model=conv_ae_spatial"]]


def test_lists_of_choices_ranges_and_quoted_values():
    assert jobs("loss=[mse,ssim],[mae]") == [["loss=[mse,ssim]"], ["loss=[mae]"]]
    assert jobs("loss=[mse,ssim]") == [["loss=[mse,ssim]"]]
    assert jobs("seed=range(3)") == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert jobs("model=conv_ae", "model.widths=[8],[8,16]") == [
        ["model=conv_ae", "model.widths=[8]"],
        ["model=conv_ae", "model.widths=[8,16]"],
    ]


def test_settings_of_hydra_are_no_job():
    assert jobs("seed=1,2", "hydra.sweep.dir=x") == [["seed=1"], ["seed=2"]]


def test_jobs_differ_in_their_signatures():
    grid = jobs("seed=1,2", "corruption.level=0.1,0.2", "model=conv_ae,median")
    assert len({signature(config(*job)) for job in grid}) == len(grid) == 8


# ---- signatures


@functools.cache
def of_the_defaults():
    return signature(config())


def test_signature_is_short_and_stable():
    cfg = config()
    assert signature(cfg) == of_the_defaults()
    assert len(signature(cfg)) == 8
    assert signature(OmegaConf.create(OmegaConf.to_yaml(cfg))) == signature(cfg)  # as stored in a run folder


@pytest.mark.parametrize(
    "override",
    [
        "output_dir=/elsewhere",
        "data_dir=/elsewhere",
        "tracking.uri=http://there",
        "tracking.log_model=false",
        "tracking.experiment=mine",
        "allow=[numpy]",
        "profile=true",
        "hydra.run.dir=/elsewhere",
    ],
)
def test_signature_ignores_where_things_are(override):
    assert signature(config(override)) == of_the_defaults()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "fit.epochs=4",
        "fit.precision=float32",
        "model.width=7",
        "model=conv_ae",
        "corruption.level=0.11",
        "corruption=[gaussian,masking]",
        "loss=mse",
        "metric=[psnr]",
        "optimizer.learning_rate=0.1",
        "+optimizer.clipnorm=1.0",
        "schedule=constant",
        "dataset=digits",
        "dataset.limit=9",
        "dataset.fallback=null",
        "task.examples=3",
    ],
)
def test_signature_changes_with_the_result(override):
    assert signature(config(override)) != of_the_defaults()


@pytest.mark.parametrize(
    "override", ["score=mse", "preparation=robust", "preparation.clip=3", "threshold=quantile", "model.members=3"]
)
def test_signature_sees_how_anomalies_are_scored(override):
    assert signature(config("task=anomaly", override)) != signature(config("task=anomaly"))


def test_signature_sees_the_order_of_corruptions():
    one, other = config("corruption=[gaussian,masking]"), config("corruption=[masking,gaussian]")
    assert signature(one) != signature(other)


def test_signature_does_not_see_how_a_level_was_given():
    assert signature(config("corruption.level=0.2")) == signature(config("corruption.gaussian.level=0.2"))


def test_run_folders_carry_the_signature():
    with compose.session():
        cfg = compose.hydra_compose("config", ["model=conv_ae", "seed=3"], return_hydra_config=True)
        compose.HydraConfig.instance().set_config(cfg)
        folder = OmegaConf.to_container(cfg.hydra.run, resolve=True)["dir"]
    assert folder.endswith(f"-denoise-conv_ae-{signature(config('model=conv_ae', 'seed=3'))}")


# ---- speed: what is not imported costs nothing

HEAVY = {"tensorflow", "keras", "mlflow", "sklearn", "skimage", "scipy", "matplotlib", "pandas", "PIL"}


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["--help"], 0), (["--cfg", "job"], 0), (["model=nope"], 2), (["-m", "model.width=4,0"], 2)],
    ids=["help", "cfg", "error", "sweep"],
)
def test_light_commands_import_nothing_heavy(argv, code, tmp_path):
    script = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('HEAVY', *sorted(sys.modules.keys() & {HEAVY})))\n"
        f"from aelab.cli import main\nmain({argv})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["HEAVY"]
    assert len(done.stderr.splitlines()) == (code == 2)
    assert list(tmp_path.iterdir()) == []


def test_composing_and_checking_imports_nothing_heavy():
    script = (
        "import sys\nfrom aelab import cli, compose, grid\n"
        "with compose.session():\n"
        "    found = grid.jobs(['model=glob(conv*)', 'optimizer=adam,sgd'], [compose.CONF])\n"
        "    names = {compose.signature(compose.compose(job, [compose.CONF])) for job in found[:3]}\n"
        f"print(len(names), *sys.modules.keys() & {HEAVY})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]
