"""What an augment run would do and cost: the backends with reasons, and estimates measured on a few steps."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from medgen.data.account import account
from medgen.data.cases import Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.errors import ConfigError
from medgen.metrics.msssim import pairwise_ms_ssim
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.dataset import Dataset, prepare_dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.runs import tracking
from medgen.runs.folder import check_cohort
from medgen.synthesis.backends import available, backend_class
from medgen.synthesis.cohort.label_facts import label_facts
from medgen.synthesis.cohort.split import CohortSplit
from medgen.synthesis.estimates import Estimate, Outline, segmenter_estimate
from medgen.synthesis.planning.router import Hardware, Routing, check_fits, hardware, route
from medgen.synthesis.planning.stages import filter_estimate, sampling_estimate
from medgen.training.cost import describe_memory, minutes

from ..preflight import preflight
from .config import AugmentRunConfig
from .intake import admit
from .prepare import PreparedCohort, split
from .study import study_estimate

# Labelled scans whose labels are looked at; more would not change what kind of label they are.
_STUDIED = 24


@dataclass(frozen=True)
class Plan:
    """What will be done, why, and what it will cost.

    Attributes:
        config: With the backends chosen.
        routing: The choice and its reasons.
        estimates: By stage, in the order of the stages.
    """

    config: AugmentRunConfig
    routing: Routing
    estimates: Mapping[str, Estimate]

    @property
    def lines(self) -> list[str]:
        """For people."""
        kind = "chosen" if self.routing.automatic else "configured"
        lines = [f"generators ({kind}): {', '.join(self.routing.backends)}"]
        lines += [f"  {reason}" for reason in self.routing.reasons]
        lines += [line for item in self.estimates.values() for line in item.lines]
        total = sum(item.seconds for item in self.estimates.values())
        return [*lines, f"in all: about {minutes(total)}"]

    def record(self) -> dict[str, object]:
        """Plain data: the choice, its reasons, and the estimates."""
        costs = {name: {"seconds": item.seconds, "bytes": item.bytes} for name, item in self.estimates.items()}
        return {**self.routing.record(), "estimates": costs}


def plan(config: AugmentRunConfig, *, resume: bool = False, overwrite: bool = False) -> list[str]:
    """What a run would do, and what it would cost: the lines of ``--dry-run``.

    Raises:
        MedgenError: If the run would refuse configuration, data, further inputs or output folder.
    """
    preflight(config, resume=resume, overwrite=overwrite)
    manifest = load_cohort(config.data, config.cohort)
    if resume:
        check_cohort(config.out, manifest.with_hashes(config.workers))
    manifest = admit(config, manifest).apply(manifest)
    parts = split(config, manifest)
    preprocess = fit_preprocess(parts.labelled, config.preprocess, config.max_side)
    channels = len(next(iter(parts.labelled)).read_image().data)
    labels = tuple(sorted(manifest.labels))
    outline = Outline(preprocess.shape, channels, labels or (1,), len(parts.labelled), len(parts.unlabelled))
    if config.generators.auto or not labels:
        studied = _studied(parts, preprocess, config.workers)
        if studied.labels is not None:
            labels = labels or tuple(int(value) for value in studied.labels.unique() if value)
            outline = replace(outline, labels=labels, facts=label_facts(studied, labels))
    made = planned(config, outline)
    return [
        *account(manifest),
        f"cohort: {len(parts.labelled.subjects)} labelled subjects, {len(parts.unlabelled)} unlabelled scans, "
        f"{len(parts.test.subjects)} test subjects",
        f"grid: {' x '.join(map(str, preprocess.shape))} voxels of {preprocess.spacing} mm, align: {preprocess.align}",
        describe_memory((channels + 1) * len(manifest) * math.prod(preprocess.shape)),
        *made.lines,
        f"output: {config.out}",
        tracking.place(config.out),
    ]


def decide(config: AugmentRunConfig, prepared: PreparedCohort, parts: CohortSplit) -> Plan:
    """Choose the backends of a run, estimate what it takes, and refuse what will not fit.

    Raises:
        ConfigError: If an arm of the value study needs a backend that was not chosen.
        ResourceError: If memory or disk will not suffice.
    """
    sources = prepared.sources(parts)
    labelled = sources.labelled.subset(sources.labelled.ids[:_STUDIED])
    outline = Outline(
        shape=sources.labelled.shape,
        channels=sources.labelled.channels,
        labels=prepared.labels,
        labelled=len(sources.labelled),
        unlabelled=0 if sources.unlabelled is None else len(sources.unlabelled),
        facts=label_facts(labelled, prepared.labels),
    )
    return planned(config, outline)


def planned(config: AugmentRunConfig, outline: Outline) -> Plan:
    """Choice, estimates and check of a cohort that is known by its outline."""
    machine = hardware(config.device, config.out)
    if config.generators.auto:
        routing = route(outline, machine, available())
        chosen = config.generators.chosen(routing.backends)
        config = config.model_copy(update={"generators": chosen})
        try:
            config.check_arms()
        except ValueError as error:
            raise ConfigError(f"{error} (generators: auto chose {', '.join(routing.backends)})") from None
    else:
        routing = Routing(config.generators.names, ("named in the configuration",), automatic=False)
    made = estimates(config, outline)
    if config.check_resources:
        check_fits(made, outline, machine, _disk(config, outline))
    return Plan(config, routing, made)


def estimates(config: AugmentRunConfig, outline: Outline) -> dict[str, Estimate]:
    """What each stage takes, trainings for smaller numbers of subjects included."""
    device, sizes = config.device, len(config.value.subjects or (0,)) if config.value.enabled else 1
    members = config.consensus.trainings if outline.unlabelled else 0
    consensus = segmenter_estimate("consensus", config.consensus.segmenter, outline, device, members)
    backends = {
        name: backend_class(name).estimate(config.generators.of(name), outline, device)
        for name in config.generators.names
    }
    judge = filter_estimate(config.filter, outline, device)
    sampling = sampling_estimate(config.scans, config.attempts, backends, judge, outline)
    result = {"consensus": consensus, **backends, "filter": judge, "sampling": sampling}
    if sizes > 1:
        result = {name: _repeated(item, sizes) for name, item in result.items()}
    if config.fidelity.enabled:
        result["fidelity"] = _fidelity_estimate(config, outline)
    if config.value.enabled:
        result["value"] = study_estimate(config, outline)
    return result


def _fidelity_estimate(config: AugmentRunConfig, outline: Outline) -> Estimate:
    """Structural similarity, most of the comparison with real scans: training, held-out and synthetic, pair by pair."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((2, outline.channels, *outline.shape), generator=generator)
    seconds = []
    for _ in range(2):  # the first one imports
        start = time.perf_counter()
        pairwise_ms_ssim(image, 1.0)
        seconds.append(time.perf_counter() - start)
    backends = len(config.generators.names)
    total = seconds[1] * math.comb(config.fidelity.similar, 2) * (2 + backends + (backends > 1))
    return Estimate(total, 0.0, (f"comparison with real scans: about {minutes(total)}",))


def _repeated(item: Estimate, times: int) -> Estimate:
    lines = tuple(f"{line}, {times} times" for line in item.lines)
    return replace(item, seconds=item.seconds * times, lines=lines)


def _disk(config: AugmentRunConfig, outline: Outline) -> float:
    """Bytes on disk: exported scans, generators that keep training scans, checkpoints and small files."""
    scans = config.scans * len(config.generators.names) * outline.voxels * (4 * outline.channels + 1)
    kept = sum(outline.cohort_bytes for name in config.generators.names if backend_class(name).derived)
    return float(scans + kept + (256 << 20))


def _studied(parts: CohortSplit, preprocess: Preprocess, workers: int) -> Dataset:
    """A few labelled scans on the model grid, by their own position: no template is needed to tell kinds of label."""
    cases: Manifest = replace(parts.labelled, cases=parts.labelled.cases[:_STUDIED])
    recipe = preprocess.model_copy(update={"align": "center", "center_on": "foreground"})
    return prepare_dataset(cases, recipe, None, workers)[0]


__all__ = ["Hardware", "Plan", "decide", "estimates", "plan", "planned"]
