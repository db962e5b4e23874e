"""A healthy scan of noise, the form of a lesion, and implants made in the one with the other."""

import numpy as np
from scipy import ndimage

from medgen.implants.catalogue import registered
from medgen.implants.scan import implant

SHAPE = (36, 40, 32)
SPACING = (1.0, 1.0, 1.2)


def scan(seed=0):
    rng = np.random.default_rng(seed)
    points = np.moveaxis(np.indices(SHAPE), 0, -1) - (np.array(SHAPE) - 1) / 2
    foreground = ((points / (np.array(SHAPE) / 2 - 2)) ** 2).sum(-1) <= 1
    texture = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2)
    image = 500 + 100 * texture / texture.std() + 10 * rng.standard_normal(SHAPE)
    return np.where(foreground, image, 0).astype(np.float32), foreground


def lesion_shape():
    shape = np.zeros((20, 20, 20), bool)
    shape[3:9, 4:16, 8:12] = shape[9:14, 10:16, 8:14] = True
    return shape


def form_for(kind):
    """The form of a lesion for the kinds that take theirs from one."""
    return lesion_shape() if kind in registered() and registered()[kind].shape else None


def make(kind, contrast=1.5, seed=0, radius_mm=5.0, **options):
    image, foreground = scan()
    options = {"foreign": scan(1)[0], "shape": form_for(kind), **options}
    rng = np.random.default_rng(seed)
    done = implant(image, foreground, kind, rng, radius_mm=radius_mm, spacing=SPACING, contrast=contrast, **options)
    return image, foreground, done
