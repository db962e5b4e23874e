"""How scans were prepared and networks trained, in sentences that all runs share."""

from __future__ import annotations

from collections.abc import Sequence

from medgen.models.base import ScanModel
from medgen.preprocessing.recipe import Preprocess
from medgen.report.methods import references
from medgen.report.methods.text import MethodsText, count, listed, module_of, sources_in, summary
from medgen.training.config import TrainingConfig

HEADING = "Preparation of scans"
MODELS = "Models"


def preparation(text: MethodsText, recipe: Preprocess) -> None:
    """The recipe, step by step in its order.

    Args:
        text: Is added to.
        recipe: As it was used.
    """
    shape = " x ".join(map(str, recipe.shape))
    spacing = " x ".join(f"{step:g}" for step in recipe.spacing)
    text.add(
        HEADING,
        *_cleaning(text, recipe),
        _place(recipe),
        f"The grid had {shape} voxels of {spacing} mm; results were brought back to each scan's own grid.",
        _scale(text, recipe),
        "What lies outside the foreground was set to 0." if recipe.mask_background else "",
    )


def _cleaning(text: MethodsText, recipe: Preprocess) -> list[str]:
    said = []
    if recipe.coregister:
        cited = text.cite(references.MUTUAL_INFORMATION)
        said.append(
            f"The contrasts of a scan were brought onto its first by a rigid motion of best mutual information{cited}."
        )
    if recipe.brain != "keep":
        which = (
            "every head that was not stripped yet"
            if recipe.brain == "extract"
            else "each scan with the size of a whole head"
        )
        said.append(
            f"The brain was extracted from {which}, by registration of the MNI template{text.cite(references.MNI)}."
        )
    if recipe.bias_field == "n4":
        said.append(f"Shading was divided out by N4{text.cite(references.N4)}.")
    return said


def _place(recipe: Preprocess) -> str:
    if recipe.align == "affine":
        return (
            "Scans were registered affinely to a template of the training scans, and refused where the correlation "
            f"with it was below {recipe.min_similarity:g}; each was interpolated once, linearly."
        )
    centre = "field of view" if recipe.center_on == "fov" else "foreground"
    return f"Scans were interpolated linearly on a grid around the centre of their {centre}, along their own axes."


def _scale(text: MethodsText, recipe: Preprocess) -> str:
    if recipe.window is not None:
        low, high = recipe.window
        unit = " HU" if recipe.modality == "CT" else ""
        return f"Intensities from {low:g} to {high:g}{unit} became 0 to 1, the same for all scans."
    first, last = recipe.percentiles
    said = f"percentiles {first:g} and {last:g} of each scan's foreground became 0 and 1."
    if recipe.intensity == "nyul":
        return f"Intensities were standardised by landmarks of the histogram{text.cite(references.NYUL)}; then {said}"
    return said[0].upper() + said[1:]


def networks(text: MethodsText, heading: str, models: Sequence[ScanModel]) -> None:
    """What the trained models are, with the works that they follow.

    Args:
        text: Is added to.
        heading: Where it is told.
        models: One of each kind.
    """
    for model in models:
        family = type(model)
        cited = text.cite(*sources_in(family))
        what = summary(module_of(family))
        text.add(heading, f"Model `{family.family}`{cited}: {what} ({model.parameter_count} parameters).")


def training(text: MethodsText, heading: str, named: str, config: TrainingConfig, times: int) -> None:
    """How a model was trained.

    Args:
        text: Is added to.
        heading: Where it is told.
        named: What was trained.
        config: Its training.
        times: How many times.
    """
    accumulated = f" of {count(config.accumulate, 'batch')}" if config.accumulate > 1 else ""
    facts = [
        f"batches of {config.batch_size}{accumulated}",
        f"a learning rate of at most {config.lr:g} (cosine)",
        *([f"an exponential moving average of the weights (decay {config.ema:g})"] if config.ema else []),
        *(["random augmentation"] if config.augment is not None else []),
    ]
    started = " It started from a trained model." if config.init is not None else ""
    again = "" if times == 1 else f", {times} times on different scans"
    text.add(
        heading,
        f"{named} was trained for {count(config.steps, 'step')} of AdamW{text.cite(references.ADAMW)}{again}, with "
        f"{listed(facts)}.{started}",
    )
