"""What is done with a finished run: test it again, restore images, score rows."""

import json
import os
from pathlib import Path

import keras
import numpy as np
from omegaconf import DictConfig

from aelab import archive, backend, compose, console, corruptions, report
from aelab.call import build, located
from aelab.config import AelabError, ConfigError, DataError
from aelab.data.arrays import read_arrays
from aelab.data.columns import encode
from aelab.data.frames import read_frame
from aelab.data.limits import afford, plain
from aelab.data.load import load
from aelab.data.pictures import opened
from aelab.run import announce, dataset_choice


def model_of(cfg: DictConfig, folder: Path, shape):
    """The trained model of a run folder."""
    file = folder / "model.keras"
    if os.path.lexists(file):
        located(cfg.model._target_)  # its module may have layers of its own, which Keras must know
        return backend.restored(file)
    if os.path.lexists(folder / "model.skops"):
        return archive.model(folder / "model.skops")
    model = shape and build(cfg.model, shape)
    if model is None or isinstance(model, keras.Model) or hasattr(model, "fit"):
        raise AelabError(f"{file} is not there: the run did not finish")
    return model


def evaluate_run(folder: Path, cfg: DictConfig, changed: list[str], target: Path | None) -> None:
    """Test a stored model, as it was or with some values changed; the result goes to a file, or beside the run's own.

    A run folder that is for reading only is no hindrance: then the result is shown, and not kept.
    """
    backend.prepare(cfg.seed, cfg.fit)
    data, reason = load(cfg.dataset, lambda name: dataset_choice(cfg, name))
    announce(data, reason)
    task = build(cfg.task)
    task.recall(folder)
    data = task.prepare(data, cfg)
    model = model_of(cfg, folder, task.shape(data))
    result = task.test(model, data, corruptions.chain(cfg.corruption), cfg)
    console.out.print(report.terminal_table(result.metrics))
    file = target or folder / "evaluations" / f"{compose.signature(cfg)}.json"
    try:
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"overrides": changed, **result.metrics}, indent=2) + "\n")
    except OSError as error:
        if target:
            raise
        console.complain(f"{file}: cannot be written ({error.strerror}), so this is not kept; add output=FILE.json")
        return
    console.out.print(f"written to {file}", soft_wrap=True)


def scores_of(folder: Path, cfg: DictConfig, user: int) -> np.ndarray:
    """What the model of a run on ratings gives each item for a user, float32 (i,)."""
    backend.prepare(cfg.seed, cfg.fit)
    task = build(cfg.task)
    task.recall(folder)
    return task.of_user(model_of(cfg, folder, None), user)


def imaging(file: Path) -> None:
    """Refuse a file that is no array or picture by its name."""
    if file.suffix not in (*ARRAYS, *PICTURES):
        raise ConfigError(f"{file}: expected a name that ends in {', '.join((*ARRAYS, *PICTURES))}")


def predict(folder: Path, cfg: DictConfig, source: Path, target: Path) -> None:
    """Restore the images of a file (.npy, .npz or a picture) and write them in the form that `target` names."""
    imaging(source)
    imaging(target)
    task = build(cfg.task)
    holes = "mask" in task.needs
    images, whole = read(source, holes)
    if holes and not np.isnan(images).any():
        raise DataError(f"{source}: no pixel is hidden; let hidden ones be NaN (.npy, .npz) or transparent (.png)")
    backend.prepare(cfg.seed, cfg.fit)
    model = model_of(cfg, folder, images.shape[1:])
    expected = tuple(model.input_shape[1:]) if isinstance(model, keras.Model) else images.shape[1:]
    if images.shape[-1] == 1 and expected[-1] == 3:
        images = images.repeat(3, axis=-1)  # a grey picture, as a model of colour images takes it
    if images.shape[1:] != expected:
        raise DataError(
            f"{source}: images of {images.shape[1:]}, but the model takes {expected} (height, width, channels)"
        )
    restored = task.predict(model, images)
    if target.suffix in PICTURES and len(restored) > 1:
        raise ConfigError(f"output={target}: {len(restored)} images do not fit one picture; write .npy or .npz")
    write(target, restored, whole)
    console.out.print(f"{len(restored)} restored image{'s' * (len(restored) > 1)} written to {target}", soft_wrap=True)


def score(folder: Path, cfg: DictConfig, source: Path, target: Path, rows: int, repair: str | None) -> None:
    """Score the rows of a CSV or Parquet file, `rows` at a time; writes them with score, flag and because."""
    backend.prepare(cfg.seed, cfg.fit)
    task = build(cfg.task)
    task.recall(folder)
    model = model_of(cfg, folder, None)
    half, done, flagged, repaired = target.with_name(f"{target.name}.part"), 0, 0, {}
    frames = read_frame(source, **task.columns.reading, chunk=rows)
    try:
        with console.counter("scoring", "rows") as count, half.open("w", encoding="utf-8", newline="") as file:
            for frame in frames:
                raw, kept, told = encode(task.columns, frame, str(source), repair)
                for name, what in told.items():
                    repaired.setdefault(name, []).append(what)
                count(len(frame))
                if not len(kept):
                    continue
                found = task.explained(model, raw, 3).set_axis(frame.index[kept])
                rest = frame.iloc[kept].drop(columns=list(found), errors="ignore")  # of an earlier scoring
                rest.join(found).to_csv(file, index=False, header=done == 0)
                done, flagged = done + len(kept), flagged + int(found["flag"].sum())
        half.replace(target)
    finally:
        half.unlink(missing_ok=True)
    console.out.print(f"{done:,} rows scored, {flagged:,} flagged; written to {target}", soft_wrap=True)
    for name, what in repaired.items():
        console.out.print(f"column {name}: {what[0]}{f', and in {len(what) - 1} more parts' if what[1:] else ''}")


ARRAYS, PICTURES = (".npy", ".npz"), (".png", ".jpg", ".jpeg")


def read(file: Path, holes: bool = False) -> tuple[np.ndarray, bool]:
    """Images of a file as float32 (n, h, w, c) in [0, 1], and whether they were whole numbers from 0 to 255.

    With `holes`, pixels may be NaN, and those of a picture are where it is wholly transparent.
    """
    where, clear = f"input={file}", False
    try:
        if file.suffix in PICTURES:
            with opened(file, where) as picture:
                if holes and "A" in picture.getbands():
                    clear = np.asarray(picture.getchannel("A"))[None, ..., None] == 0
                array = np.asarray(picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB"))[None]
        else:
            arrays = read_arrays(file, where)
            if not arrays:
                raise DataError(f"{where}: expected an array, got none")
            array = arrays.get("x", next(iter(arrays.values())))
    except FileNotFoundError as error:
        raise DataError(f"{where}: no such file") from error
    return as_images(array, where, holes, clear)


def as_images(array: np.ndarray, where: str, holes: bool, clear) -> tuple[np.ndarray, bool]:
    """An array of a file as `read` gives it; `clear` is where a picture is transparent."""
    expected = f"{where}: expected images (n, h, w) or (n, h, w, c), uint8 or floats in [0, 1]"
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3, 4) or not array.size:
        raise DataError(f"{expected}; got {array.dtype} {array.shape}")
    afford(array.size * 12, where, "give fewer images at a time")
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3:
        array = array[..., None]
    whole = array.dtype == np.uint8
    known = array[~np.isnan(array)] if holes and array.dtype.kind == "f" else array
    low, high = (known.min(), known.max()) if known.size else (np.nan, np.nan)
    if not (whole or 0 <= np.float32(low) <= np.float32(high) <= 1):  # false for NaN as well
        raise DataError(f"{expected}; got {array.dtype} {array.shape} from {plain(low)} to {plain(high)}")
    images = array.astype(np.float32) / (255 if whole else 1)
    return np.where(clear, np.float32(np.nan), images), whole


def write(file: Path, images: np.ndarray, whole: bool) -> None:
    """Images (n, h, w, c) in [0, 1] to a file; pictures, and what came as whole numbers, as 0 to 255."""
    from PIL import Image

    if whole or file.suffix in PICTURES:
        images = np.rint(images * 255).astype(np.uint8)
    if file.suffix == ".npz":
        np.savez_compressed(file, x=images)
    elif file.suffix == ".npy":
        np.save(file, images)
    else:
        Image.fromarray(images[0].squeeze()).save(file)
