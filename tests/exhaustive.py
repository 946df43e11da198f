"""Picking without any shortcut: every template in every rotation at every pixel, one by one, in double precision."""

import numpy as np
from scipy import ndimage

from pickcal.picking.bank import rotate
from pickcal.picking.ctf import ctf_filter
from pickcal.picking.filters import band_pass, soft_disc


def exhaustive_scores(image, pixel, templates, template_pixel, step, bank, parameters, ctf):
    """Best score of all entries at every pixel of the image; `bank` gives the mask and its box at this pixel."""
    margin = int(np.ceil(2 * bank.mask_radius / pixel))
    padded = np.pad(image - image.mean(), margin, mode="symmetric").astype(float)
    shape = padded.shape
    filtered = np.fft.rfft2(padded) * band_pass(shape, pixel, parameters.low_pass, parameters.high_pass)
    box = bank.basis.shape[1]
    mask = soft_disc(box, pixel, bank.mask_radius - bank.mask_edge, bank.mask_radius).astype(float)
    transfer = ctf_filter(ctf, shape, pixel) * band_pass(shape, pixel, parameters.low_pass, None)
    signal = np.fft.irfft2(filtered, shape)
    start = [(n - box) // 2 for n in shape]
    centre = [s + box // 2 for s in start]
    window = (slice(start[0], start[0] + box), slice(start[1], start[1] + box))

    def correlated(kernel, spectrum):
        placed = np.zeros(shape)
        placed[window] = kernel
        placed = np.roll(placed, (-centre[0], -centre[1]), (0, 1))
        return np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(placed)), shape)

    mean = correlated(mask, filtered) / mask.sum()
    spread = np.sqrt(correlated(mask, np.fft.rfft2(signal**2)) - mask.sum() * mean**2)
    best = np.full(shape, -np.inf)
    angles = np.arange(0, 360, step, dtype=np.float32)
    for template in templates:
        for entry in rotate(template, template_pixel, pixel, box, angles, parameters.low_pass):
            masked = (entry - (entry * mask).sum() / mask.sum()) * mask
            placed = np.zeros(shape)
            placed[window] = masked
            seen = np.fft.irfft2(np.fft.rfft2(placed) * transfer, shape)[window]
            seen = seen - (seen * mask).sum() / mask.sum()
            norm = np.sqrt((mask * seen**2).sum())
            best = np.maximum(best, correlated(seen * mask, filtered) / (norm * spread))
    return best[margin:-margin, margin:-margin]


def naive_picks(scores, pixel, parameters):
    """Peaks of the full map off the border, greedily thinned: positions `(y, x)` in Å, and scores."""
    border = int(np.ceil(0.5 * parameters.diameter / pixel))
    y, x = np.nonzero(scores == ndimage.maximum_filter(scores, 3))
    inside = (np.minimum(y, x) >= border) & (np.maximum(y, x) <= len(scores) - 1 - border)
    y, x = y[inside], x[inside]
    kept = []
    for i in np.argsort(-scores[y, x]):
        if all(np.hypot(y[i] - y[j], x[i] - x[j]) * pixel >= parameters.min_distance for j in kept):
            kept.append(i)
    return np.column_stack([y[kept], x[kept]]) * pixel, scores[y[kept], x[kept]]


def judged(positions, scores, truth, radius):
    """Scores, best first, and whether each pick is a particle's: matched one to one within a radius, in Å."""
    order = np.argsort(-scores)
    free, hits = np.ones(len(truth), bool), np.zeros(len(order), bool)
    for n, i in enumerate(order):
        distance = np.where(free, np.hypot(*(truth - positions[i]).T), np.inf)
        if distance.min() < radius:
            free[distance.argmin()] = False
            hits[n] = True
    return scores[order], hits


def accuracy(scores, hits, particles):
    """Best F1 over all thresholds, and average precision."""
    hits = hits[np.argsort(-scores, kind="stable")]
    found, taken = np.cumsum(hits), np.arange(1, len(hits) + 1)
    return float((2 * found / (taken + particles)).max()), float((found / taken)[hits].sum() / particles)
