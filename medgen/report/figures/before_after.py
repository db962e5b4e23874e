"""A scan before and after a preparation, one picture below the other."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from medgen.report.figures.mosaic import mosaic
from medgen.report.html import png
from medgen.volume import Volume


def before_after(before: Volume, after: Volume, kept: Volume | None, title: str) -> bytes:
    """Slices of a scan as it was read and as it is after its preparation, evenly spread over each.

    Args:
        before: (c, i, j, k).
        after: The same scan, on this or another grid of its world.
        kept: Mask, (1, i, j, k) > 0, outlined in both; None for no outline.
        title: What the scan is called.

    Returns:
        A PNG.
    """
    pictures = [
        Image.open(BytesIO(png(mosaic(scan, contour=kept, contour_label="what is kept", title=f"{title}: {what}"))))
        for scan, what in ((before, "as read"), (after, "prepared"))
    ]
    width, height = max(item.width for item in pictures), sum(item.height for item in pictures)
    whole = Image.fromarray(np.full((height, width, 3), 255, dtype=np.uint8))
    top = 0
    for item in pictures:
        whole.paste(item.convert("RGB"), (0, top))
        top += item.height
    stream = BytesIO()
    whole.save(stream, format="PNG")
    return stream.getvalue()
