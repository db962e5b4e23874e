"""What a run of the value study alone is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from medgen.synthesis.value.arms import SYNTHETIC

from .config import LabelledRunConfig


class ValueRunConfig(LabelledRunConfig):
    """One study.

    Attributes:
        synthetic: Name → folder of synthetic scans with masks; arms name them as ``<ordinary>+<name>``.
        run: Folder of an earlier ``augment run`` of the same data, seed, test and validation, whose accepted scans
            are used as ``<ordinary>+<backend>``.
    """

    out: Path = Path("runs/value")
    synthetic: dict[str, Path] = Field(default_factory=dict)
    run: Path | None = None

    @field_validator("synthetic")
    @classmethod
    def _names(cls, value: dict[str, Path]) -> dict[str, Path]:
        for name in value:
            if name == SYNTHETIC or not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"synthetic: {name!r} cannot name a pool; expected letters, digits, '-' and '_'")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ValueRunConfig:
        if not self.value.enabled:
            raise ValueError("value.enabled: expected true, since the study is all there is to run")
        if self.run is None:
            self.check_sources(tuple(self.synthetic), "synthetic scans")
            if self.value.sources and not self.synthetic:
                raise ValueError(
                    "value.arms name synthetic scans, and there are none; give synthetic.<name>=FOLDER or run=FOLDER, "
                    "or leave these arms out"
                )
        return self

    def inputs(self) -> dict[str, Path]:
        """The folders of synthetic scans."""
        found = {f"synthetic.{name}": folder for name, folder in self.synthetic.items()}
        return found if self.run is None else {**found, "run": self.run}
