"""Settings of the normative maps."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from medgen.config import Config

AUTO = "auto"
NONE = "none"


class NormativeConfig(Config):
    """How healthy score maps are summarised.

    Attributes:
        blur: Standard deviation in model voxels of the blur of mean and variance.
        prior: How many scans the region's average variance counts for in the shrinkage.
        covariates: ``auto``: mean and variance follow those of age, sex, scanner, field_strength and site that the
            manifest has of the development subjects and that their number supports; a list of the manifest's columns:
            these; ``none``: no covariate.
    """

    blur: float = Field(default=1.5, ge=0, le=10)
    prior: float = Field(default=10.0, ge=0)
    covariates: str | tuple[str, ...] = AUTO

    @field_validator("covariates")
    @classmethod
    def _auto_none_or_columns(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in (AUTO, NONE):
            raise ValueError(f"expected auto, none or a list of columns such as [age, sex], found {value[:40]!r}")
        if not isinstance(value, str):
            value = tuple(name.strip().lower() for name in value)
            if not value or len(set(value)) < len(value) or not all(value):
                raise ValueError(f"expected a list of different columns such as [age, sex], found {list(value)}")
        return value
