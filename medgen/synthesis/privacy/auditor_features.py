"""Features of scans as the filter's auditors see them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medgen.synthesis.filtering.filter import Filter


@torch.no_grad()
def auditor_features(filters: Filter, images: Tensor, batch: int = 8) -> Tensor:
    """Mean activations of the auditors' deepest convolution, (n, features), of images (n, c, i, j, k)."""
    columns = []
    for segmenter, _ in filters.auditors:
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: Tensor, into: list[Tensor] = kept) -> None:
            into.append(output)

        convolutions = [module for module in segmenter.network.modules() if isinstance(module, nn.Conv3d)]
        handles = [module.register_forward_hook(keep) for module in convolutions]
        try:
            parts = []
            for start in range(0, len(images), batch):
                kept.clear()
                segmenter.probabilities(images[start : start + batch], batch)
                # The deepest layer has the fewest voxels; of several, the last.
                deepest = min(reversed(kept), key=lambda output: output[0, 0].numel())
                parts.append(deepest.float().mean(dim=(2, 3, 4)).cpu())
            columns.append(torch.cat(parts))
        finally:
            for handle in handles:
                handle.remove()
    return torch.cat(columns, dim=1)
