"""A run: the whole data flow on one screen, and what it leaves behind."""

import contextlib
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.panel import Panel

from aelab import (
    account,
    archive,
    backend,
    callbacks,
    check,
    circumstances,
    compose,
    console,
    corruptions,
    grid,
    past,
    run_files,
    tracking,
)
from aelab import report as pages
from aelab.call import build
from aelab.config import BESIDE, ConfigError
from aelab.data.load import load
from aelab.data.record import fingerprint
from aelab.figures import curves
from aelab.fit import fit
from aelab.store import TrackingError, told


def run(job: compose.Job, started: float, parent: str | None = None, report: Callable | None = None) -> dict:
    """Train, test once, and leave the run folder and the MLflow run; returns the final metrics by name.

    `started` is the time on the clock at which the user began to wait; `parent` is the MLflow run of the sweep;
    `report` is called with the row of each epoch. A folder in which the same job was stopped before is gone on with.
    """
    overrides, cfg, folder, _ = job
    earlier = past.unfinished(job)
    with logged(folder, cfg, overrides):
        precision = backend.prepare(cfg.seed, cfg.fit)
        data, reason = load(cfg.dataset, partial(dataset_choice, cfg))
        announce(data, reason)
        corrupt, task = corruptions.chain(cfg.corruption), build(cfg.task)
        tested = fingerprint(data.test.x, data.test.y)  # before it is prepared: the same rows, whatever the model
        data = task.prepare(data, cfg)
        model = build(cfg.model, task.shape(data))
        name = " ".join(
            [f"{cfg.choices.task}-{cfg.choices.model}-{data.name}", *(grid.values(overrides) if parent else ())]
        )
        facts = facts_of(job, data, model, precision) | {"test fingerprint": tested}
        with tracking.start(cfg, folder, name, parent, tags(facts, reason), earlier) as log:
            log.batch(params=parameters(cfg, data))
            log.dataset(data)
            clock = time.perf_counter()
            history = fit(
                model, task, data, corrupt, cfg, partial(optimizer, cfg), log, folder, earlier is not None, report
            )
            before = history.attrs.get("earlier", 0.0)
            fit_s = before + time.perf_counter() - clock
            result = task.test(model, data, corrupt, cfg)
            metrics = {**result.metrics, "time/fit_s": fit_s, **({"data/fallback": 1.0} if reason else {})}
            save(model, folder)
            task.keep(folder)
            with account.whole(folder / account.EXAMPLES) as half:
                result.examples.to_parquet(half)
            show(folder, name, task, data, result, history, metrics, facts, cfg, [reason] if reason else [])
            if cfg.tracking.log_model and isinstance(model, keras.Model):
                log.model(model, result.inputs[:2])
            metrics["time/total_s"] = before + time.time() - started
            account.write(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
            account.note(folder, files=run_files.digests(folder, besides=callbacks.FILE))
            log.metrics(metrics)  # at step 0: MLflow draws a bar for each run, rather than curves of one point
            log.files(folder, account.shown(folder))
        (folder / callbacks.FILE).unlink(missing_ok=True)
        finish(metrics, folder, log, cfg)
    if log.lost:
        raise TrackingError(f"the tracking store was lost ({log.lost}); the run's files are in {folder}")
    return metrics


def optimizer(cfg: DictConfig, steps: int):
    """The optimizer, with its learning rate on the schedule over so many steps."""
    rate = cfg.optimizer.learning_rate
    rate = build(rate) if isinstance(rate, DictConfig) else rate  # a schedule of Keras, beside schedule=constant
    return build(cfg.optimizer, learning_rate=build(cfg.schedule, rate, steps))


def dataset_choice(cfg: DictConfig, name: str) -> DictConfig:
    """Another data set's config node, its interpolations resolved within this run's config; checked as its own is."""
    files = compose.choices("dataset", compose.folders([]))
    if name not in files:
        raise ConfigError(f"dataset.fallback={name}: no such dataset; there are: {', '.join(files)}")
    node = OmegaConf.load(files[name])
    if "_target_" not in node:
        raise ConfigError(f"dataset={name} needs a path of yours: it can be asked for, but not fallen back on")
    root = OmegaConf.create({**cfg, "dataset": node})
    plain = OmegaConf.to_container(root.dataset, resolve=True)
    check.component(f"dataset={name}", plain, "dataset", cfg.allow, check.GROUP_KEYS["dataset"])
    return OmegaConf.create(plain)


@contextlib.contextmanager
def logged(folder: Path, cfg: DictConfig, overrides: list[str]):
    """Write the config first, so that even a failed run says what it was; errors go to run.log with their traceback."""
    folder.mkdir(parents=True, exist_ok=True)
    account.write(folder / "config.yaml", told(cfg))
    account.write(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))
    if (folder / "run.log").exists():
        run_files.plain(folder / "run.log")
    handler = logging.StreamHandler(account.log(folder / "run.log"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.captureWarnings(True)
    logging.getLogger().addHandler(handler)  # the root's: other packages' warnings belong there too
    logger = logging.getLogger("aelab")
    logger.setLevel(logging.INFO)
    try:
        logger.info("started with %s", " ".join(overrides) or "the defaults")
        yield
        logger.info("finished")
    except BaseException as error:
        logger.exception("ended by %s", type(error).__name__)
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.stream.close()


def announce(data, reason: str | None) -> None:
    """Say what is trained on; loudly where it is not what was asked for."""
    if reason:
        console.out.print(Panel(reason, title="NOT THE DATA YOU ASKED FOR", border_style="bold red"))
        logging.getLogger("aelab").warning(reason)
    sizes = f"{len(data.train):,} train / {len(data.validation):,} validation / {len(data.test):,} test"
    console.out.print(f"{data.name}: {sizes}" + (f", {' x '.join(map(str, data.shape))}" if data.shape else ""))
    if data.kind != "image":
        console.out.print(data.notes)


def facts_of(job: compose.Job, data, model, precision: str) -> dict[str, str]:
    """What a reader must know to trust or repeat the figures."""
    weights = f"{model.count_params():,}" if isinstance(model, keras.Model) else "none to train"
    return {
        "data set": data.name,
        "data fingerprint": data.fingerprint,
        "data source": data.source,
        "licence": data.licence,
        "signature": job.signature,
        "weights": weights,
        "precision": precision,
        "device": ", ".join(backend.devices()),
        "git revision": circumstances.revision() or "not a checkout",
        **circumstances.versions(),
    }


def tags(facts: dict[str, str], reason: str | None) -> dict[str, str]:
    """The facts as MLflow tags, and the reason why the data are others than those asked for."""
    named = {f"aelab.{k.replace(' ', '_')}": v for k, v in facts.items()}
    return named | ({"aelab.fallback": reason} if reason else {})


def parameters(cfg: DictConfig, data) -> dict[str, str]:
    """Every value of the config by its dotted name, the choices by their group's: what the MLflow UI compares."""
    return {**compose.flat(cfg), "dataset": data.name}


def save(model, folder: Path) -> None:
    """The trained model; what learns nothing is whole in config.yaml."""
    if isinstance(model, keras.Model):
        with account.whole(folder / "model.keras") as half:
            model.save(half)
    elif hasattr(model, "fit"):
        with account.whole(folder / "model.skops") as half:
            archive.write(model, half)


def show(folder, name, task, data, result, history: pd.DataFrame, metrics, facts, cfg, notices) -> None:
    """Draw the task's figures and the learning curves, and write report.html."""
    drawn = dict(task.figures(result, data))
    if len(history):
        drawn["curves"] = curves(history)
    account.write(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    pages.write(
        folder,
        title=name,
        subtitle=f"seed {cfg.seed}; test split of {len(data.test):,}",
        summary={k: v for k, v in metrics.items() if not k.endswith(BESIDE)},
        tables={"test metrics": pages.metric_table(metrics), **task.tables(result, data)},
        figures=drawn,
        facts=facts,
        config=told(cfg),
        notices=notices,
    )


def finish(metrics: dict, folder: Path, log, cfg: DictConfig) -> None:
    """The last lines: the metrics, the folder, and how to open the run."""
    console.out.print(pages.terminal_table(metrics))
    console.out.print(f"fit {metrics['time/fit_s']:.1f} s, in all {metrics['time/total_s']:.1f} s")
    console.out.print(f"run folder  {folder}\nreport      {folder / 'report.html'}", soft_wrap=True)
    where = tracking.page(log, cfg.tracking.uri)
    console.out.print(f"MLflow      {where}", soft_wrap=True)
