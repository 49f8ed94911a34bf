"""Classical image filters with nothing to train: the baselines that a network has to beat."""

import numpy as np
from rich.progress import track
from scipy import ndimage
from skimage import restoration

from aelab import console
from aelab.config import Count, Image, Level, Masked
from aelab.masks import hidden


class Filter:
    """Restores images (n, h, w, c) in [0, 1] one by one."""

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Restored images, of the same shape."""
        shown = track(inputs, "filtering", console=console.out, disable=not console.out.is_terminal)
        return np.stack([self.restore(image) for image in shown]).astype(np.float32)


class Median(Filter):
    """The median of the `size` x `size` pixels around each pixel, channel by channel."""

    def __init__(self, shape: Image, /, *, size: Count):
        self.size = (size, size, 1)

    def restore(self, image):
        """One image (h, w, c)."""
        return ndimage.median_filter(image, self.size)


class TotalVariation(Filter):
    """Total-variation denoising (Chambolle, JMIV 2004): the larger `weight`, the flatter the result."""

    def __init__(self, shape: Image, /, *, weight: Level):
        self.weight = weight

    def restore(self, image):
        """One image (h, w, c)."""
        return restoration.denoise_tv_chambolle(image, self.weight, channel_axis=-1)


class NonLocalMeans(Filter):
    """Non-local means (Buades et al., CVPR 2005): averages of patches that look alike.

    `h` is the cut-off in grey levels, `patch` the side of the patches and `distance` how far away they are looked
    for, in pixels.
    """

    def __init__(self, shape: Image, /, *, h: Level, patch: Count, distance: Count):
        self.knobs = {"h": h, "patch_size": patch, "patch_distance": distance}

    def restore(self, image):
        """One image (h, w, c)."""
        restored = restoration.denoise_nl_means(image, **self.knobs, fast_mode=True, channel_axis=-1)
        return restored.reshape(image.shape)  # it drops a single channel


class Biharmonic(Filter):
    """Biharmonic inpainting: the smoothest surface through what can be seen. Hidden pixels are those that are marked.

    Chui and Mhaskar, Appl. Comp. Harmonic Anal. 28 (2010), 104-113; scikit-image's.
    """

    def __init__(self, shape: Masked, /):
        pass

    def restore(self, image):
        """One image (h, w, c)."""
        return restoration.inpaint_biharmonic(image, hidden(image)[..., 0], channel_axis=-1)
