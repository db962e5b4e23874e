"""Synthetic scans as a MONAI dictionary transform; the module imports MONAI."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform, RandomizableTransform
from torch.utils.data import get_worker_info

from medgen.errors import DataError
from medgen.seeds import derive
from medgen.synthesis.loaders.datasets import Item, Mixing, Source, SyntheticDataset, check_use, ids_of
from medgen.transforms.intensity_matching import match_intensities


class RandSyntheticd(Mixing, RandomizableTransform, MapTransform):
    """Replace image and label of a case by those of a synthetic scan, with probability ``prob``.

    Where it stands in the pipeline decides what it hands on:

    * *before* ``LoadImaged``: file names for file names (exported scans only);
    * *right after* ``LoadImaged`` and ``EnsureChannelFirstd``: arrays with their affine, scaled to the intensities of
      the case they replace, so that windows in scanner units hold for them too;
    * *further down*, with ``prepare`` the transforms before it: the scan goes through them first. Place it so behind
      the deterministic transforms of a ``CacheDataset``.

    Draws come from the transform's own random state: ``set_random_state`` makes them repeatable. Every worker of a
    ``DataLoader`` gets its own stream, derived from that state and from the worker's seed.

    Args:
        keys: Keys of the image and of the label in a case's dictionary, in this order.
        source: :class:`~medgen.synthesis.SyntheticDataset`, :class:`~medgen.synthesis.LiveDataset`, or the folder of
            exported scans. Its ``transform`` is not used.
        prob: Probability, annealed over the last quarter if :meth:`set_progress` is called.
        prepare: Transforms that stand before this one, called with ``{image: file names, label: file name}``.
        match: Scale arrays to the percentiles of the replaced image (without ``prepare``).
        validation: Case ids or subjects of your validation and test sets, to be checked.
        allow_missing_keys: As in MONAI: leave cases without one of the keys alone.

    Raises:
        DataError: If there are not two keys, ``prob`` is no probability, or the source cannot give what is needed.
        AuditError: If the generators learnt from a case of ``validation``; on a call, if the case that comes in was
            held out in the run that made the scans: this transform is for training only.
    """

    backend = MapTransform.backend

    def __init__(
        self,
        keys: Sequence[Hashable] = ("image", "label"),
        source: Source | str | Path = "",
        prob: float = 0.5,
        *,
        prepare: Callable[[Item], Mapping[Hashable, Any]] | None = None,
        match: bool = True,
        validation: Collection[str] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        Mixing.__init__(self, prob)
        RandomizableTransform.__init__(self, prob)
        MapTransform.__init__(self, keys, allow_missing_keys)
        if len(self.keys) != 2:
            raise DataError(f"RandSyntheticd: keys {self.keys}; expected the key of the image and that of the label")
        self.source: Source = SyntheticDataset(source) if isinstance(source, str | Path) else source
        check_use(self.source, (), validation)
        self.prepare, self.match = prepare, match
        self._worker_seed: int | None = None
        self._chosen, self._index = False, 0

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandSyntheticd:
        """Start the draws anew, as in MONAI."""
        super().set_random_state(seed, state)
        info = get_worker_info()
        self._worker_seed = None if info is None else int(info.seed)
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw whether a case is replaced, and by which scan."""
        info = get_worker_info()
        if info is not None and self._worker_seed != info.seed:
            # torch's own DataLoader copies one state to all workers, which would then all draw the same.
            self.set_random_state(seed=derive(int(self.R.randint(2**31 - 1)), "worker", int(info.seed)) % 2**32)
        # Both draws always: the scan drawn does not depend on the probability.
        self._chosen = float(self.R.rand()) < self.probability
        self._index = int(self.R.randint(len(self.source)))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with image and label of a synthetic scan, or as it is."""
        result = dict(data)
        self.randomize()
        image_key, label_key = self.keys
        if len([*self.key_iterator(result)]) < 2:
            return result
        if self.source.origin is not None and self.probability > 0:
            self.source.origin.refuse_training(_names(result[image_key]))
        if not self._chosen:
            return result
        if self.prepare is not None or not hasattr(result[image_key], "shape"):
            record = self.source.record(self._index)
            files: Mapping[Hashable, Any] = {image_key: record["image"], label_key: record["label"]}
            files = files if self.prepare is None else self.prepare(dict(files))  # type: ignore[arg-type]
            return {**result, **{key: files[key] for key in self.keys}}
        item = self.source.arrays(self._index)
        image, affine = item["image"].numpy(), item["affine"]
        old = np.asarray(result[image_key])
        if old.ndim != 4 or len(old) != len(image):
            raise DataError(
                f"RandSyntheticd: an image of shape {old.shape} is to be replaced by a scan of shape {image.shape}; "
                "expected (channel, i, j, k) with equal channels; put it after EnsureChannelFirstd"
            )
        if self.match:
            image = match_intensities(image, old)
        result[image_key] = _like(torch.from_numpy(image), result[image_key], affine)
        result[label_key] = _like(item["label"], result[label_key], affine)
        return result


def _names(image: Any) -> frozenset[str]:
    """What the file name of an image, if there is one, says about its case."""
    name = image.meta.get("filename_or_obj", "") if isinstance(image, MetaTensor) else image
    return ids_of([{"image": name}])


def _like(value: torch.Tensor, old: Any, affine: torch.Tensor) -> Any:
    """A tensor as the kind of array, of the type and on the device of the one that it replaces."""
    if not isinstance(old, torch.Tensor):
        return value.numpy().astype(np.asarray(old).dtype)
    value = value.to(dtype=old.dtype, device=old.device)
    return MetaTensor(value, affine=affine) if isinstance(old, MetaTensor) else value
