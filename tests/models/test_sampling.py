"""Options of sampling: draws against SciPy's truncated normal distribution, and how options are chosen anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from medgen.errors import ConfigError
from medgen.models.sampling import GaussianSampling, overridden
from medgen.synthesis.backends import backend_class


def test_draws_are_those_of_a_truncated_normal_distribution() -> None:
    draws = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    made = GaussianSampling(limit=1.2, temperature=0.5).shaped(draws)
    assert made.dtype == torch.float32
    assert float(made.abs().max()) < 0.6
    assert stats.kstest(made.numpy() / 0.5, stats.truncnorm(-1.2, 1.2).cdf).pvalue > 0.05
    # The same quantile of it, so that a seed stays the same scan in variations.
    expected = stats.truncnorm(-1.2, 1.2).ppf(stats.norm.cdf(draws.numpy().astype(np.float64)))
    np.testing.assert_allclose(made.numpy(), 0.5 * expected, atol=1e-5)


def test_draws_far_out_are_finite_and_usual_ones_are_left_alone() -> None:
    far = torch.tensor([-40.0, -9.0, 9.0, 40.0])
    torch.testing.assert_close(GaussianSampling(limit=2).shaped(far), torch.tensor([-2.0, -2.0, 2.0, 2.0]))
    assert GaussianSampling().shaped(far) is far


def test_options_of_a_pair_are_chosen_in_its_halves() -> None:
    before = backend_class("flow").Sampling.model_validate(
        {"labels": {"strength": 0.7}, "painter": {"solver_steps": 4}}
    )
    # Short names take them without the half; what is not named stays.
    after = overridden(before, {"temperature": 0.5, "labels": {"appearance": 0.2}}, "flow")
    kept = {"solver_steps": 4, "temperature": 0.5, "style_temperature": 1.0}
    assert after.model_dump()["painter"] == kept
    assert after.model_dump()["labels"]["strength"] == 0.7
    assert after.model_dump()["labels"]["appearance"] == 0.2
    with pytest.raises(ConfigError, match=r"flow: unknown key 'solver_step'"):
        overridden(before, {"solver_step": 4}, "flow")
    with pytest.raises(ConfigError, match=r"painter.solver_steps"):
        overridden(before, {"solver_steps": 0}, "flow")
