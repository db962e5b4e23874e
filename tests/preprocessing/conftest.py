"""The phantom that is drawn on any grid."""

from tests.builders.phantom import phantom

__all__ = ["phantom"]
