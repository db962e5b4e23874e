"""medgen: synthesis of labelled 3D medical images and anomaly detection for small cohorts. Not for clinical use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medgen.api import check, load, simulate, synthesize

__version__ = "0.1.0"
__all__ = ["__version__", "check", "load", "simulate", "synthesize"]


def __getattr__(name: str) -> Any:
    # Models need torch, which takes seconds to import; the command line must not wait for it.
    if name in {"check", "load", "simulate", "synthesize"}:
        import medgen.api

        return getattr(medgen.api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
