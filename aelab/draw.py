"""Images from the prior of a finished variational autoencoder."""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from aelab import backend, console
from aelab.stored import PICTURES, imaging, model_of, write
from aelab.tasks.generate import called, halves


def draw(folder: Path, cfg: DictConfig, target: Path, count: int, temperature: float, seed: int) -> None:
    """Write images from the prior of a variational autoencoder, with `temperature` as its standard deviation."""
    imaging(target)
    backend.prepare(cfg.seed, cfg.fit)
    decoder = halves(model_of(cfg, folder, None))[1]
    z = np.random.default_rng(seed).standard_normal((count, decoder.input_shape[-1]), np.float32)
    images = np.clip(called(decoder)(temperature * z), 0, 1)
    write(target, sheet(images) if target.suffix in PICTURES else images, whole=True)
    console.out.print(f"{count} image{'s' * (count > 1)} drawn and written to {target}", soft_wrap=True)


def sheet(images: np.ndarray) -> np.ndarray:
    """Images (n, h, w, c) in [0, 1] as one, (1, H, W, c): ten a row, two white pixels apart."""
    wide = min(10, len(images))
    apart = np.pad(images, ((0, -len(images) % wide), (0, 2), (0, 2), (0, 0)), constant_values=1)
    n, h, w, c = apart.shape
    return apart.reshape(n // wide, wide, h, w, c).swapaxes(1, 2).reshape(1, n // wide * h, wide * w, c)[:, :-2, :-2]
