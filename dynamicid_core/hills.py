"""Hills of a map: connected parts of a grid around the peaks that stand out, as water would part them."""

from __future__ import annotations

import numpy as np

LEAST_RISE = 0.1  # of a map's extent: what a peak must rise above the pass to a higher one to have a hill of its own
BLUR = 1.0  # cells: standard deviation


def smooth(values: np.ndarray) -> np.ndarray:
    """[h, w] -> the same, with ``BLUR``."""
    from scipy.ndimage import gaussian_filter

    blurred: np.ndarray = gaussian_filter(values.astype(np.float64), BLUR, mode="nearest")
    return blurred


def hills(values: np.ndarray, free: np.ndarray) -> list[np.ndarray]:
    """The hills of ``values`` [h, w] in the cells that are ``free`` [h, w], those that rise most first: bool [h, w] each.

    Together they are all free cells, and each is connected. Water sinks from the highest cell: a cell that comes out of it joins its
    highest neighbour's hill, or begins one; where hills meet, those whose peaks rise too little (:data:`LEAST_RISE`) become part of
    another. Equal cells come in reading order, so the same map gives the same hills.
    """
    order = [cell for cell in np.argsort(-values, axis=None, kind="stable").tolist() if free.flat[cell]]
    if not order:
        return []
    height, width = values.shape
    flat = values.ravel()
    least = LEAST_RISE * float(flat[order[0]] - flat[order[-1]])
    hill_of: dict[int, int] = {}  # cell -> the peak of its hill when it joined
    parent: dict[int, int] = {}  # peak -> the peak of the hill that it became part of, or itself
    rise: dict[int, float] = {}

    def peak_of(cell: int) -> int:
        peak = hill_of[cell]
        while parent[peak] != peak:
            peak = parent[peak]
        return peak

    for cell in order:
        y, x = divmod(cell, width)
        around = [
            (y + dy) * width + x + dx
            for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0))
            if 0 <= y + dy < height and 0 <= x + dx < width
        ]
        joined = [other for other in around if other in hill_of]
        if not joined:
            hill_of[cell] = parent[cell] = cell
            continue
        peaks = sorted({peak_of(other) for other in joined}, key=lambda peak: (-flat[peak], peak))
        for peak in peaks[1:]:
            rise.setdefault(peak, float(flat[peak] - flat[cell]))
        low = [peak for peak in peaks[1:] if rise[peak] < least]
        hill_of[cell] = peak_of(max(joined, key=lambda other: (flat[other], -other)))
        into = peaks[0] if hill_of[cell] in low else hill_of[cell]  # this cell connects them
        parent.update(dict.fromkeys(low, into))
    number = np.full(height * width, -1)
    for cell in order:
        number[cell] = peak_of(cell)
    tops = [peak for peak in parent if parent[peak] == peak]
    tops.sort(key=lambda peak: (-rise.get(peak, float("inf")), peak))
    return [(number == peak).reshape(height, width) for peak in tops]
