"""Every error of a config is one line that says what to type instead, found before anything is imported."""

import pytest

from aelab import check, cli, compose, config, declared, grid
from aelab.config import AelabError


def line(*argv):
    """What a command line complains about: one line, exit code 2."""
    with pytest.raises(AelabError) as error:
        composed(*argv)
    assert error.value.code == 2
    text = str(error.value)
    assert "\n" not in text
    return text


def composed(*argv):
    """The configs of a command line, checked as `aelab` does before anything is run."""
    overrides, extra, multirun = cli.split_flags(list(argv))
    dirs = compose.folders(extra)
    with compose.session():
        jobs = grid.jobs(overrides, dirs) if multirun else [overrides]
        return [compose.compose(job, dirs) for job in jobs]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working folder with a user's own package, and a function that writes a YAML into its ./conf."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_py.py").write_text(
        "import os\nfrom aelab.config import Count, Image\nfrom aelab.tasks.task import Task\n"
        "Sound = tuple[int]\n"
        "def net(shape: Image, /, *, width: Count, plain): ...\n"
        "def wave(shape: Sound, /, *, width: Count): ...\n"
        "class Listen(Task):\n    '''Hear.'''\n    kinds = ('sound',)\n    def __init__(self, *, seconds: Count): ...\n"
        "def hum(target, output, /): ...\n"
    )

    def write(path, *lines):
        file = tmp_path / "conf" / f"{path}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n")

    declared._definition.cache_clear()  # another test may have had another mine_py
    declared._tree.cache_clear()
    declared._names.cache_clear()
    yield write
    declared._definition.cache_clear()


MODELS = ", ".join(compose.choices("model", [compose.CONF]))
IMAGE_MODELS, ROW_MODELS = (", ".join(compose.fitting("model", (kind,), [compose.CONF])) for kind in ("image", "table"))
DATASETS = ", ".join(compose.choices("dataset", [compose.CONF]))
LOSSES = ", ".join(compose.choices("loss", [compose.CONF]))
RATE = "optimizer.learning_rate={_target_:keras.optimizers.schedules.CosineDecay,initial_learning_rate:0.1"
TRUST = "is not allowed: a config may name aelab's own and packages that you trust; if you trust this"
NO_MODEL = "is not a model; give model=NAME, or with allow=[PACKAGE] one of yours: def name(shape, /, *, knobs)"
NO_RATE = "is not a schedule of a learning rate; give a number"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        # an unknown knob, setting or group
        ("model.widht=3", "model.widht: unknown; did you mean width?"),
        ("model=conv_ae model.zzz=3", "model.zzz: unknown; there are: bottleneck, widths"),
        ("corruption.levle=0.2", "corruption.levle: unknown; did you mean level?"),
        ("fit.epoch=3", "fit.epoch: unknown; did you mean epochs?"),
        ("+fit.epoch=3", "fit.epoch: unknown; did you mean epochs?"),
        ("+model._args_=[1]", "model._args_: unknown; there are: blocks, bottom, depth, width"),
        ("+model._partial_=true", "model._partial_: unknown; there are: blocks, bottom, depth, width"),
        ("tracking.url=x", "tracking.url: unknown; did you mean uri?"),
        ("modle=conv_ae", "modle: unknown; did you mean model?"),
        ("modle.width=3", "modle.width: unknown; did you mean model?"),
        ("optimizer.lrr=1", "optimizer.lrr: unknown; there are: learning_rate, weight_decay"),
        ("+corruption.levle=0.2", "corruption.levle: expected a component with a _target_, got 0.2"),
        ("+loss.mse.weight=1", "loss.mse: expected a component with a _target_, got {'weight': 1}"),
        ("loss.ssim=null", "loss.ssim: expected a component with a _target_, got None"),
        # an unknown choice
        ("model=unet_mny", f"model=unet_mny: no such model; there are: {MODELS}"),
        ("loss=[mse,huber]", f"loss=huber: no such loss; there are: {LOSSES}"),
        ("debug=slow", "debug=slow: no such debug; there are: fast, overfit, profile"),
        ("dataset.fallback=mnist", f"dataset.fallback=mnist: no such dataset; there are: {DATASETS}"),
        ("model=3", "model=3: expected the name of a choice"),
        ("model=null seed=1", "model=null: expected the name of a choice"),
        # a wrong type or a value out of range
        ("model.width=wide", "model.width: expected a whole number at least 1, got 'wide'"),
        ("model.width=1.5", "model.width: expected a whole number at least 1, got 1.5"),
        ("model.width=0", "model.width: expected a whole number at least 1, got 0"),
        ("model.width=null", "model.width: expected a whole number at least 1, got null"),
        ("model.width=", "model.width: expected a whole number at least 1, got ''"),
        (
            "model=conv_ae model.widths=[3,x]",
            "model.widths: expected a list: each a whole number at least 1, got [3, 'x']",
        ),
        ("model=conv_ae model.widths=3", "model.widths: expected a list: each a whole number at least 1, got 3"),
        ("corruption.gaussian.level=-1", "corruption.gaussian.level: expected a number at least 0, got -1"),
        ("task=inpaint corruption.level=0.2", "corruption.level=0.2: is of no use without one; add corruption=NAME"),
        ("corruption.level=nan", "corruption.gaussian.level: expected a finite number at least 0, got nan"),
        (
            "corruption=salt_pepper corruption.level=2",
            "corruption.salt_pepper.level: expected a number from 0 to 1, got 2",
        ),
        ("loss=mse loss.mse.weight=x", "loss.mse.weight: expected a number at least 0, got 'x'"),
        ("metric.psnr.goal=up", "metric.psnr.goal: expected one of min, max, got 'up'"),
        ("optimizer.learning_rate=high", "optimizer.learning_rate: expected a number, got 'high'"),
        ("optimizer.learning_rate=true", "optimizer.learning_rate: expected a number, got true"),
        ("seed=-1", "seed: expected a whole number at least 0, got -1"),
        ("seed=1.0", "seed: expected a whole number at least 0, got 1.0"),
        ("fit.deterministic=yes", "fit.deterministic: expected true or false, got 'yes'"),
        ("fit.deterministic=1", "fit.deterministic: expected true or false, got 1"),
        ("fit.patience=0", "fit.patience: expected a whole number at least 1 or null, got 0"),
        (
            "fit.precision=half",
            "fit.precision: expected one of auto, float32, mixed_bfloat16, mixed_float16, got 'half'",
        ),
        (
            "fit=quick",
            "fit: expected values for epochs, batch_size, precision, steps_per_execution, deterministic, monitor, "
            "patience; set them as fit.epochs=...",
        ),
        ("allow=numpy", "allow: expected a list: each a text, got 'numpy'"),
        # something missing
        ("dataset=npz", "path: missing; give it as path=..."),
        ("~model.width", "model: aelab.models.unet.unet_mini also needs width"),
        ("~fit.epochs", "fit.epochs: missing"),
        ("~model", "model: missing; give it as model=NAME"),
        ("loss=[]", "loss: missing; give it as loss=NAME or loss=[NAME,NAME]"),
        ("metric=[]", "metric: missing; give it as metric=NAME or metric=[NAME,NAME]"),
        # what a config may not name
        ("model._target_=os.system", f"model._target_: os.system is not allowed: it {NO_MODEL}"),
        ("model._target_=keras.layers.Dense", f"model._target_: keras.layers.Dense is not allowed: it {NO_MODEL}"),
        ("model._target_=aelabx.y", f"model._target_: aelabx.y is not allowed: it {NO_MODEL}"),
        ("+model.x._target_=os.system", "model.x: unknown; there are: KNOBS"),
        (
            "optimizer.learning_rate={_target_:os.system,command:ls}",
            f"optimizer.learning_rate._target_: os.system is not allowed: it {NO_RATE}",
        ),
        (
            "model._target_=aelab.models.unet.nope",
            "model._target_: there is no function or class aelab.models.unet.nope",
        ),
        (
            "model._target_=aelab.run.subprocess.run",
            "model._target_: there is no function or class aelab.run.subprocess.run",
        ),
        ("model._target_=3", "model._target_: expected a text, got 3"),
        ("allow=[math] model._target_=math.sqrt", "model._target_: there is no function or class math.sqrt"),
        # components for another kind of data
        (
            "model=dense_ae",
            f"model=dense_ae: is for table data, but task=denoise takes image; models that fit: {IMAGE_MODELS}",
        ),
        (
            "task=anomaly model=unet_mini",
            f"model=unet_mini: is for image data, but task=anomaly takes table; models that fit: {ROW_MODELS}",
        ),
        (
            "dataset=breast_cancer",
            "dataset=breast_cancer: is for table data, but task=denoise takes image; "
            "datasets that fit: cifar10, digits, fashion_mnist, images, npz, photo_patches",
        ),
        (
            "task=anomaly dataset=digits",
            "dataset=digits: is for image data, but task=anomaly takes table; "
            "datasets that fit: arrhythmia, breast_cancer, creditcard, csv, nsl_kdd, unsw_nb15",
        ),
        (
            "corruption=[gaussian,swap]",
            "corruption=swap: is for table data, but task=denoise takes image; "
            "corruptions that fit: gaussian, masking, poisson, salt_pepper, speckle",
        ),
        (
            "task=anomaly corruption=gaussian",
            "corruption=gaussian: is for image data, but task=anomaly takes table; corruptions that fit: jitter, swap",
        ),
        (
            "metric=[psnr,roc_auc]",
            "metric=roc_auc: is for table data, but task=denoise takes image; metrics that fit: mae, mse, psnr, ssim",
        ),
        (
            "task=anomaly metric=[pr_auc,mse]",
            "metric=mse: is for image data, but task=anomaly takes table; "
            "metrics that fit: pr_auc, precision_at, recall_at, roc_auc",
        ),
        # groups that some tasks need, and others do not take
        (
            "task=anomaly ~score",
            "score=null: task=anomaly needs one; there are: elbo, mae, mahalanobis, max, mse, scaled",
        ),
        (
            "task=anomaly ~preparation",
            "preparation=null: task=anomaly needs one; there are: minmax, quantile, robust, standard",
        ),
        (
            "task=anomaly ~threshold",
            "threshold=null: task=anomaly needs one; there are: best_f1, false_positive_rate, quantile",
        ),
        ("score=mse", "score=mse: task=denoise takes none; leave it out"),
        ("preparation=robust", "preparation=robust: task=denoise takes none; leave it out"),
        ("threshold=best_f1", "threshold=best_f1: task=denoise takes none; leave it out"),
        ("task=anomaly score=mse +score.zzz=1", "score.zzz: unknown; there are: none"),
        ("task=anomaly score=scaled score.floor=-1", "score.floor: expected a number at least 0, got -1"),
        ("task=anomaly threshold=quantile threshold.share=2", "threshold.share: expected a number from 0 to 1, got 2"),
        (
            "task=anomaly preparation.log=some",
            "preparation.log: expected one of auto or a list: each a text or null, got 'some'",
        ),
        ("task=anomaly model.members=0", "model.members: expected a whole number at least 1, got 0"),
        # optimizers and schedules of Keras
        (
            "optimizer.clipnorm=1",
            "optimizer.clipnorm: has no value to change here; to give it one, type +optimizer.clipnorm=...",
        ),
        ("+optimizer.clipnrom=1", "optimizer.clipnrom: unknown; did you mean clipnorm?"),
        ("+optimizer.beta_1=x", "optimizer.beta_1: expected a number, got 'x'"),
        (
            f"schedule=constant {RATE}}}",
            "optimizer.learning_rate: keras.optimizers.schedules.CosineDecay also needs decay_steps",
        ),
        (
            f"schedule=constant {RATE},decay_step:9}}",
            "optimizer.learning_rate.decay_step: unknown; did you mean decay_steps?",
        ),
        (
            f"{RATE},decay_steps:9}}",
            "schedule=warmup_cosine: needs a number as optimizer.learning_rate; or schedule=constant",
        ),
        ("optimizer.learning_rate={a:1}", "optimizer.learning_rate: expected a number, got {'a': 1}"),
        ("optimizer=sgd +optimizer.beta_1=0.9", "optimizer.beta_1: unknown; there are: KNOBS"),
        # the command line itself
        (
            "unet_mini",
            "unet_mini: expected key=value or one of: compare, evaluate, predict, score, recommend, similar, generate, "
            "rerun, resume, sync, ui, doctor, help; see aelab --help",
        ),
        ("--epochs=3", "--epochs=3: no such option; there are: -m, --cfg job, --config-dir DIR, --help"),
        ("model.width={a", "model.width={a: not understood; write key=value, and quote what a shell would change"),
        ("-m model=glob(zz*)", f"model=glob(zz*): matches no model; there are: {MODELS}"),
        ("-m seed=1,2 model=unet_mini,nope", f"model=nope: no such model; there are: {MODELS}"),
        ("-m model.width=4,0", "model.width: expected a whole number at least 1, got 0"),
    ],
)
def test_error(command, expected):
    argv = command.split()
    if "KNOBS" in expected:
        target = "keras.optimizers.SGD" if "sgd" in command else "aelab.models.unet.unet_mini"
        expected = expected.replace("KNOBS", ", ".join(sorted(declared.signature(target).knobs)))
    assert line(*argv) == expected


@pytest.mark.parametrize(
    "command",
    [
        "+optimizer.clipnorm=1.0",  # a knob of the base class, through **kwargs
        "+optimizer.use_ema=true",
        "+optimizer.beta_1=0.8",
        "optimizer=adam +optimizer.amsgrad=true",
        "optimizer=sgd optimizer.momentum=0",
        f"schedule=constant {RATE},decay_steps:9}}",
        "dataset=npz path=a.npz",
        "dataset.limit=null",
        "fit.patience=null",
        "fit.epochs=0",
        "corruption=none",
        "corruption=[]",
        "corruption=[masking,gaussian] corruption.level=0.1",
        "loss=mse",
        "data_dir=/tmp",
        "model._target_=aelab.models.unet.unet_mini",
        "task=anomaly",
        "task=anomaly model=lof dataset=breast_cancer score=mse preparation=robust threshold=quantile",
        "task=anomaly model=vae score=elbo",
        "task=anomaly corruption=[jitter,swap] corruption.level=0.1",
        "task=anomaly corruption=none",
        "task=anomaly preparation.log=[Amount]",
        "task=anomaly preparation.log=auto preparation.clip=5",
        "task=anomaly dataset=csv path=a.csv label=class positive=[1,x]",
    ],
)
def test_no_error(command):
    composed(*command.split())


@pytest.mark.parametrize("name", compose.choices("optimizer", [compose.CONF]))
def test_the_knobs_of_optimizers_are_those_of_keras(name):
    knobs = declared.signature(compose.target(compose.CONF / "optimizer" / f"{name}.yaml")).knobs
    assert {"learning_rate", "clipnorm", "global_clipnorm", "weight_decay", "use_ema"} <= knobs.keys()
    assert not any(knob.required for knob in knobs.values())
    assert knobs["learning_rate"].type is float


# ---- a user's own components, by ./conf


def test_a_users_model(mine):
    mine("model/net", "_target_: mine_py.net", "width: 3", "plain: [1, x]")
    (cfg,) = composed("model=net", "allow=[mine_py]")
    assert (cfg.choices.model, cfg.model.width) == ("net", 3)
    assert line("model=net") == f"model._target_: mine_py.net {TRUST} one, add allow=[mine_py]"
    assert line("model=net", "allow=[mine_py]", "model.width=0") == (
        "model.width: expected a whole number at least 1, got 0"
    )
    assert (
        line("model=nett") == f"model=nett: no such model; there are: {', '.join(sorted([*MODELS.split(', '), 'net']))}"
    )


def test_a_users_yaml_that_lacks_a_knob(mine):
    mine("model/net", "_target_: mine_py.net", "width: 3")
    assert line("model=net", "allow=[mine_py]") == "model: mine_py.net also needs plain"
    mine("model/net", "width: 3")
    assert line("model=net") == "model: missing; give it as model=NAME"


def test_a_users_yaml_that_lacks_what_its_group_needs(mine):
    mine("metric/hum", "hum:", "  _target_: mine_py.hum")
    assert line("metric=hum", "allow=[mine_py]") == "metric.hum: mine_py.hum also needs goal"
    mine("loss/mine", "mine:", "  _target_: aelab.losses.mse")
    assert line("loss=mine") == "loss.mine: aelab.losses.mse also needs weight"


def test_a_value_that_is_asked_for(mine):
    mine("model/net", "_target_: aelab.models.unet.unet_mini", "width: ???")
    assert line("model=net") == "model.width: missing; give it as model.width=... (a whole number at least 1)"


def test_what_does_not_fit_the_task_is_refused(mine, monkeypatch):
    monkeypatch.setitem(declared.KINDS, "Sound", ("sound",))
    mine("task/listen", "_target_: mine_py.Listen", "seconds: 3")
    mine("model/wave", "_target_: mine_py.wave", "width: 3")
    assert line("model=wave", "allow=[mine_py]") == (
        f"model=wave: is for sound data, but task=denoise takes image; models that fit: {IMAGE_MODELS}"
    )
    assert line("task=listen", "model=wave", "allow=[mine_py]") == (
        "dataset=fashion_mnist: is for image data, but task=listen takes sound; datasets that fit: none"
    )


def test_a_second_folder(mine, tmp_path, monkeypatch):
    mine("model/net", "_target_: aelab.models.conv.conv_ae", "bottleneck: 3", "widths: [2]")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert "net" not in compose.choices("model", compose.folders([]))
    (cfg,) = composed("model=net", "--config-dir", "../conf")
    assert cfg.model.bottleneck == 3
    assert line("--config-dir=nowhere") == f"--config-dir {elsewhere}/nowhere: no such folder"


@pytest.mark.parametrize(
    ("group", "name", "kind"),
    [
        ("task", "denoise", "image"),
        ("task", "anomaly", "table"),
        ("dataset", "digits", "image"),
        ("dataset", "nsl_kdd", "table"),
        ("dataset", "creditcard", "table"),
        ("corruption", "masking", "image"),
        ("corruption", "swap", "table"),
        ("corruption", "flip", "labelled images"),
        ("model", "cnn", "labelled images"),
        ("model", "median", "image"),
        ("model", "vae", "table"),
        ("model", "pca", "table"),
        ("metric", "ssim", "image"),
        ("metric", "roc_auc", "table"),
        ("preparation", "robust", "table"),
        ("score", "elbo", "table"),
        ("threshold", "quantile", "table"),
    ],
)
def test_kinds_are_read_from_annotations(group, name, kind):
    assert declared.kinds(group, compose.target(compose.choices(group, [compose.CONF])[name]))[0] == kind


@pytest.mark.parametrize("group", [*check.ONE, *check.SEVERAL, *check.NEEDED])
def test_every_component_is_for_one_kind_or_for_any(group):
    """Optimizers and schedules are for any, and so are most losses."""
    known = compose.choices(group, [compose.CONF])
    targets = {name: target for name, file in known.items() if (target := compose.target(file))}
    found = {
        kind: compose.fitting(group, (kind,), [compose.CONF]) for kinds in declared.KINDS.values() for kind in kinds
    }
    if group in ("optimizer", "schedule"):
        assert not any(found.values())
    elif group == "loss":
        own = {"ssim": "image", "multinomial": "interactions", "bpr": "interactions"}
        for name, kind in own.items():
            assert next(other for other in found if name in found[other]) == kind
            assert name not in found["table"]
        assert {"kl", "sparsity"} <= set.intersection(*map(set, found.values()))
        assert {"mse", "mae"} <= set(found["image"]) & set(found["table"]) & set(found["pairs"])
        assert not {"mse", "mae", "bce"} & {*found["labelled images"], *found["text"]}
    elif group == "similarity":
        assert not any(found.values())  # of vectors, whatever they stand for
    else:
        assert {name for names in found.values() for name in names} == set(targets)


# ---- types


@pytest.mark.parametrize(
    ("kind", "words", "good", "bad"),
    [
        (int, "a whole number", [0, -3], [True, 1.0, "1", None]),
        (float, "a number", [0, 1.5, 1e308], [True, "1", None, float("inf"), float("nan"), 10**400]),
        (bool, "true or false", [True, False], [0, "true"]),
        (str, "a text", ["", "a"], [1, None]),
        (str | None, "a text or null", ["a", None], [1, []]),
        (config.Share, "a number from 0 to 1", [0, 0.5, 1], [-0.1, 1.1, float("nan"), True]),
        (config.Count | None, "a whole number at least 1 or null", [1, None], [0, 1.5]),
        (list[config.Count], "a list: each a whole number at least 1", [[], [1, 2]], [1, [0], [1, "a"], "ab"]),
        (list, "a list", [[], [1, "a"]], [{}, "a"]),
        (config.Range, "Range", [object()], []),  # types that are not simple are let through
    ],
)
def test_types(kind, words, good, bad):
    assert config.describe(kind) == words
    assert all(config.conforms(value, kind) for value in good)
    assert not any(config.conforms(value, kind) for value in bad)


def test_range_in_words():
    assert [str(config.Range(*r)) for r in ((1, None), (0, 1), (None, 3))] == ["at least 1", "from 0 to 1", "at most 3"]


# ---- signatures


def test_signature_reads_the_source():
    found = declared.signature("aelab.models.conv.conv_ae")
    assert found.knobs == {
        "bottleneck": declared.Knob(config.Count, True),
        "widths": declared.Knob(list[config.Count], True),
    }
    assert (found.takes, found.gives) == (("image", "coded image"), None)
    assert declared.signature("aelab.data.digits.digits").gives[:2] == ("image", "coded image")
    assert declared.signature("aelab.models.filters.Median").takes == ("image",)
    assert declared.signature("keras.optimizers.Adam").knobs["amsgrad"] == declared.Knob(declared.Any, False)
    assert declared.class_value("aelab.tasks.denoise.Denoise", "kinds") == ("image",)
    assert declared.class_value("aelab.tasks.denoise.Denoise", "other") is None
    assert declared.summary("aelab.ops.mse").startswith("Mean squared error")
    assert declared.signature("aelab.models") is declared.signature("nowhere.at.all") is None


def test_an_annotation_that_would_run_something_is_not_run(mine, tmp_path):
    code = f"def f(x, /, *, a: open({str(tmp_path / 'made')!r}, 'w'), b: __import__('os')): ...\n"
    (tmp_path / "mine_py.py").write_text(code)
    knobs = declared.signature("mine_py.f").knobs
    assert not (tmp_path / "made").exists()
    assert knobs.keys() == {"a", "b"}


def test_unknown_names_the_nearest_or_all():
    assert check.unknown("a.x", "x", ()) == "a.x: unknown; there are: none"
    assert check.unknown("a.x", "x", ["q", "b", "q"]) == "a.x: unknown; there are: b, q"
    assert check.unknown("a.levle", "levle", ["b", "level"]) == "a.levle: unknown; did you mean level?"
