"""The mathematics of training as pure functions: likelihoods, divergences, bounds, adversarial terms, distance maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, autograd
from torch.nn import functional

LOG_2PI = math.log(2 * math.pi)


def gaussian_nll(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Negative log-density of a diagonal Gaussian in nats per element, in float32; shapes broadcast.

    ½ · (log 2π + s + exp(−s) (x − μ)²) with s the log-variance. Twice this without log 2π is the AE-U loss
    (Mao et al., "Abnormality detection in chest X-ray images using uncertainty prediction autoencoders", MICCAI 2020).
    """
    logvar = logvar.float()
    return 0.5 * (LOG_2PI + logvar + torch.exp(-logvar) * (x.float() - mean.float()).square())


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``values`` (b, c, i, j, k) with voxel weights (b, 1, i, j, k) over everything, a scalar."""
    return (values * weight).sum() / (weight.sum() * values.shape[1]).clamp_min(1e-6)


def kl_standard_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) in nats per element: ½ (μ² + σ² − 1 − log σ²) (Kingma and Welling 2014, appendix B)."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)


def kl_gaussians(mean: Tensor, logvar: Tensor, other_mean: Tensor, other_logvar: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(m, s²)) in nats per element: ½ ((μ − m)²/s² + σ²/s² − 1 − log σ²/s²); shapes broadcast."""
    mean, logvar, other_mean, other_logvar = (part.float() for part in (mean, logvar, other_mean, other_logvar))
    ratio = logvar - other_logvar
    return 0.5 * ((mean - other_mean).square() * torch.exp(-other_logvar) + ratio.exp() - 1 - ratio)


def free_bits(kl: Tensor, nats: float) -> Tensor:
    """KL of (b, d) summed over d, each dimension's batch mean at least ``nats`` (Kingma et al. 2016, section 4)."""
    return kl.mean(0).clamp_min(nats).sum()


def iwae_bound(log_p_x_given_z: Tensor, log_p_z: Tensor, log_q: Tensor) -> Tensor:
    """Importance-weighted lower bound on log p(x) (Burda et al., "Importance weighted autoencoders", ICLR 2016).

    log (1/K) Σₖ p(x|zₖ) p(zₖ) / q(zₖ|x) with zₖ drawn from q(·|x). Its expectation is a lower bound that grows with
    K to log p(x); with K = 1 it is the ELBO.

    Args:
        log_p_x_given_z: (K, b), nats.
        log_p_z: (K, b), nats.
        log_q: (K, b), nats.

    Returns:
        (b,), nats.
    """
    weights = log_p_x_given_z + log_p_z - log_q
    return torch.logsumexp(weights, dim=0) - math.log(weights.shape[0])


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """½ (E max(0, 1 − D(x)) + E max(0, 1 + D(G(z)))) (Lim and Ye 2017; Miyato et al. 2018, equation 16)."""
    return 0.5 * (functional.relu(1 - real.float()).mean() + functional.relu(1 + fake.float()).mean())


def hinge_generator(fake: Tensor) -> Tensor:
    """−E D(G(z)) (Miyato et al. 2018, equation 17): linear, so a generator that is losing keeps its gradient."""
    return -fake.float().mean()


def nonsaturating_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """½ (E softplus(−D(x)) + E softplus(D(G(z)))): half the cross-entropy of real and fake (Goodfellow et al. 2014)."""
    return 0.5 * (functional.softplus(-real.float()).mean() + functional.softplus(fake.float()).mean())


def nonsaturating_generator(fake: Tensor) -> Tensor:
    """E softplus(−D(G(z))) = −E log σ(D(G(z))) (Goodfellow et al. 2014, section 3)."""
    return functional.softplus(-fake.float()).mean()


def r1_penalty(logits: Tensor, real: Tensor) -> Tensor:
    """½ E ‖∇ₓ D(x)‖² on real images (Mescheder et al. 2018, equation 9), differentiable; call it in float32.

    Args:
        logits: Output of the discriminator for ``real``.
        real: (b, ...), requires grad, an ancestor of ``logits``.
    """
    (gradient,) = autograd.grad(logits.sum(), real, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(1).mean()


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean over layers of mean |f(x) − f(x̂)|, no gradient through the real side (Salimans 2016, Larsen 2016)."""
    terms = [(b.float() - a.detach().float()).abs().mean() for a, b in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (b, 1, i, j, k), 0 to ``classes`` − 1, as maps (b, classes, i, j, k) float32 of 0 and 1."""
    numbers = torch.arange(classes, device=labels.device).view(1, -1, 1, 1, 1)
    return (labels == numbers).float()


def soft_dice(probability: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean over the classes after the first of 2 Σ w p t / (Σ w p + Σ w t), pooled over the batch (Milletari 2016).

    Args:
        probability: (b, classes, i, j, k).
        truth: (b, classes, i, j, k), one-hot.
        weight: (b, 1, i, j, k), not negative.

    Returns:
        A scalar; a class that is nowhere counts as 1.
    """
    axes = (0, 2, 3, 4)
    overlap = 2 * (weight * probability * truth).sum(axes) + 1e-5
    both = (weight * probability).sum(axes) + (weight * truth).sum(axes) + 1e-5
    return (overlap / both)[1:].mean()


def dice_cross_entropy(scores: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy plus 1 − soft Dice, the mean over foreground classes, pooled over the batch.

    Pooling over the batch (nnU-Net's "batch Dice") keeps a class that one scan lacks from counting as a miss. For
    shares instead of indices the product in the Dice becomes a minimum, so that a perfect answer, and no other, still
    reaches 1 (Wang et al., "Dice semimetric losses: optimizing the Dice score with soft labels", MICCAI 2023); for
    shares of 0 and 1 the two are the same.

    Args:
        scores: (b, classes, i, j, k), before the softmax.
        target: (b, i, j, k) class indices, or (b, classes, i, j, k) shares, floating point.
        weight: (b, 1, i, j, k) weight of each voxel in both terms; None for 1.

    Returns:
        A scalar, float32.
    """
    scores = scores.float()
    probability = scores.softmax(dim=1)
    axes = (0, 2, 3, 4)
    if target.is_floating_point():
        truth = target.to(probability.dtype)
        common = torch.minimum(probability, truth)
    else:
        target = target.long()
        truth = functional.one_hot(target, scores.shape[1]).movedim(-1, 1).to(probability.dtype)
        common = probability * truth
    if weight is None:
        entropy = functional.cross_entropy(scores, target)
    else:
        each = functional.cross_entropy(scores, target, reduction="none")
        entropy = (each * weight[:, 0]).sum() / weight.sum().clamp_min(1e-6)
        common, probability, truth = common * weight, probability * weight, truth * weight
    overlap = 2 * common.sum(axes) + 1e-5
    dice = overlap / (probability.sum(axes) + truth.sum(axes) + 1e-5)
    return entropy + 1 - dice[1:].mean()


def signed_distance(labels: Tensor, n_labels: int, truncation: int) -> Tensor:
    """Truncated signed Euclidean distance maps of labels 1 to ``n_labels``, exact, in units of the truncation.

    Positive inside a label, negative outside, zero on the face between two voxels (half a voxel from either centre),
    clipped to ±1 at ``truncation`` voxels. Distances in voxels. The distance transform is separable minimisation of
    squared distances (Felzenszwalb and Huttenlocher 2012) in a window of the truncation, in integers, on any device.

    Args:
        labels: (b, 1, i, j, k) integers.
        n_labels: Number of labels besides the background.
        truncation: Voxels, 1 to 11.

    Returns:
        (b, n_labels, i, j, k) float32 in [-1, 1].
    """
    numbers = torch.arange(1, n_labels + 1, device=labels.device).view(1, -1, 1, 1, 1)
    inside = labels == numbers
    # One of the two is zero everywhere. Half a voxel less: the surface lies between two voxels, not on one.
    squared = _squared_distance(inside, truncation) + _squared_distance(~inside, truncation)
    distance = squared.float().sqrt_().sub_(0.5).div_(truncation).clamp_max_(1)
    return distance * inside.float().mul_(2).sub_(1)


def labels_from_distance(distance: Tensor) -> Tensor:
    """Labels of signed distance maps (b, n, i, j, k): background where all are negative, else the largest.

    A distance of exactly zero belongs to the label. The result is (b, i, j, k) int64.
    """
    value, index = distance.max(dim=1)
    return torch.where(value >= 0, index + 1, 0)


def _squared_distance(target: Tensor, truncation: int) -> Tensor:
    """Squared distance in voxels to the nearest true voxel, at most (truncation + 1)², as uint8."""
    if not 1 <= truncation <= 11:
        raise ValueError(f"expected a truncation of 1 to 11 voxels, found {truncation}")
    reach = truncation + 1
    cap = reach * reach
    squared = (~target).to(torch.uint8).mul_(cap)
    for _ in range(3):
        # Each turn works along the first axis, where shifted views are contiguous blocks (four times faster).
        squared = squared.movedim(-1, 0).contiguous()
        length = len(squared)
        result = squared.clone()
        for offset in range(1, min(reach, length)):
            # min(f, cap − o²) + o² = min(f + o², cap): no overflow in uint8.
            shifted = squared.clamp_max(cap - offset * offset).add_(offset * offset)
            torch.minimum(result[:-offset], shifted[offset:], out=result[:-offset])
            torch.minimum(result[offset:], shifted[:-offset], out=result[offset:])
        squared = result
    # Axes arrive as (i, j, k, b, n) after three turns.
    return squared.movedim((0, 1, 2), (2, 3, 4)).contiguous()
