"""How lesions look: a Gaussian of their styles, given the tissue around."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.seeds import numpy_rng
from medgen.synthesis.lesions.crops import conditional_style


def test_styles_follow_the_gaussian_and_the_surroundings() -> None:
    rng = numpy_rng(0, "style")
    level = rng.normal(0.6, 0.1, 400)
    # An intensity of 0.2 whatever is around: the difference is 0.2 minus the surroundings.
    styles = np.stack([0.2 - level + 0.01 * rng.standard_normal(400), level], axis=1).astype(np.float32)
    none = np.zeros(400)
    for around in (0.5, 0.8):
        expected = conditional_style(styles, np.array([around], dtype=np.float32), 0.0, none)
        assert expected[0] == pytest.approx(0.2 - around, abs=0.01)
    here = np.array([0.6], dtype=np.float32)
    draws = [conditional_style(styles, here, 1.0, rng.standard_normal(400))[0] for _ in range(300)]
    assert np.std(draws) == pytest.approx(0.01, rel=0.2)
    alone = conditional_style(styles[:1], np.array([0.9], dtype=np.float32), 0.0, none[:1])
    assert alone[0] == pytest.approx(styles[0, 0], abs=1e-4)
