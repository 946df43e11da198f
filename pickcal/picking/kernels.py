"""Inner loops of the search, compiled by numba: what NumPy could only do with large temporaries.

Maps are `(y, x, k)`: everything that belongs to one pixel lies together, so that a pixel's score is one short run
through memory. Where it counts, loops run over slices taken before: of an index into a whole array the compiler has to
ask in every step whether it counts from the end. Compiled code is cached on disk and releases the GIL.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]
Int32 = NDArray[np.int32]
Indices = NDArray[np.intp]

compiled = numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz", "nnan", "ninf"})


@compiled
def weighted_squares(maps: Float32, weights: Float32, rows: Indices, columns: Indices, out: Float32) -> None:
    """Sum over k of weights[k] maps[y, x, k]^2 on a window that begins at `(rows[0], columns[0])`; fills `out`."""
    for i in range(out.shape[0]):
        line, sums = maps[rows[0] + i], out[i]
        for j in range(out.shape[1]):
            pixel = line[columns[0] + j]
            total = np.float32(0)
            for k in range(weights.shape[0]):
                total += weights[k] * pixel[k] * pixel[k]
            sums[j] = total


@compiled
def take_rows(flat: Float32, where: Indices, out: Float32) -> None:
    """Copy rows of `(pixels, k)` to the first rows of `out`."""
    for i in range(where.shape[0]):
        source, to = flat[where[i]], out[i]
        for k in range(to.shape[0]):
            to[k] = source[k]


@compiled
def extremes(even: Float32, odd: Float32, highest: Float32, lowest: Float32, high_row: Int32, low_row: Int32) -> None:
    """Best and worst of even + odd and even - odd in each column of `(n, points)`: both half-turns from one product.

    Fills scores and rows; rows of even - odd come after those of even + odd.
    """
    count = np.int32(even.shape[0])
    for j in range(even.shape[1]):
        highest[j], lowest[j] = np.float32(-3e38), np.float32(3e38)
    for i in range(even.shape[0]):
        this = np.int32(i)
        for j in range(even.shape[1]):
            size = abs(odd[i, j])
            high, low = even[i, j] + size, even[i, j] - size
            high_row[j] = this if high > highest[j] else high_row[j]
            low_row[j] = this if low < lowest[j] else low_row[j]
            highest[j] = max(highest[j], high)
            lowest[j] = min(lowest[j], low)
    for j in range(even.shape[1]):
        if odd[high_row[j], j] < 0:
            high_row[j] += count
        if odd[low_row[j], j] > 0:
            low_row[j] += count


@compiled
def best_row(even: Float32, odd: Float32, sign: float, score: Float32, row: Int32) -> None:
    """Best of sign (even + odd) and sign (even - odd) in each column; rows of the second kind come after the first."""
    face = np.float32(sign)
    count = even.shape[0]
    for j in range(even.shape[1]):
        score[j] = np.float32(-3e38)
        row[j] = 0
    for i in range(count):
        this = np.int32(i)
        for j in range(even.shape[1]):
            value = face * even[i, j] + abs(odd[i, j])
            row[j] = this if value > score[j] else row[j]
            score[j] = max(value, score[j])
    for j in range(even.shape[1]):
        if face * odd[row[j], j] < 0:
            row[j] += np.int32(count)


@compiled
def best_of_members(
    values: Float32, weights: Float32, split: int, members: Int32, face: float
) -> tuple[np.float32, np.int32]:
    """Best product of one pixel's values, times `face`, with some entries or their half-turns, and whose it is.

    Half-turns are counted from `len(weights)` on; the odd part begins at `split`.
    """
    best, entry, turn = np.float32(-3e38), np.int32(0), np.float32(0)
    even_values, odd_values = values[:split], values[split:]
    for m in range(members.shape[0]):
        one, two = np.float32(0), np.float32(0)
        even_weights, odd_weights = weights[members[m], :split], weights[members[m], split:]
        for k in range(even_values.shape[0]):
            one += even_weights[k] * even_values[k]
        for k in range(odd_values.shape[0]):
            two += odd_weights[k] * odd_values[k]
        value = face * one + abs(two)
        if value > best:
            best, entry, turn = value, members[m], face * two
    return best, entry if turn >= 0 else entry + np.int32(weights.shape[0])


@compiled
def best_member(
    even: Float32,
    odd: Float32,
    sign: float,
    members: Int32,
    starts: Int32,
    weights: Float32,
    values: Float32,
    split: int,
    groups: int,
    score: Float32,
    row: Int32,
) -> None:
    """Best entry among the members of each point's best groups.

    Parameters
    ----------
    even, odd
        Products of the groups' means, `(groups, points)`.
    sign, score, row
        See `best_row`.
    members, starts
        Entries in the order of their groups, and where each group begins; `starts` has one element more than groups.
    weights, values
        Entries `(h, k)` and points `(points, k)`.
    split
        Where the odd part of k begins.
    groups
        Groups to look into.
    """
    face = np.float32(sign)
    likely = np.empty(groups, np.int32)
    likeness = np.empty(groups, np.float32)
    for j in range(values.shape[0]):
        likeness[:] = np.float32(-3e38)
        for i in range(even.shape[0]):
            value = face * even[i, j] + abs(odd[i, j])
            if value > likeness[groups - 1]:
                at = groups - 1
                while at > 0 and likeness[at - 1] < value:
                    likeness[at], likely[at] = likeness[at - 1], likely[at - 1]
                    at -= 1
                likeness[at], likely[at] = value, i
        score[j], row[j] = np.float32(-3e38), 0
        for g in range(min(groups, even.shape[0])):
            some = members[starts[likely[g]] : starts[likely[g] + 1]]
            best, entry = best_of_members(values[j], weights, split, some, face)
            if best > score[j]:
                score[j], row[j] = best, entry


@compiled
def best_around(
    maps: Float32,
    spread: Float32,
    weights: Float32,
    split: int,
    members: Int32,
    starts: Int32,
    groups: Float32,
    group: Int32,
    corner: tuple[int, int],
    y: Indices,
    x: Indices,
    reach: int,
    least: float,
    sign: float,
    score: Float32,
    entry: Int32,
    row: Indices,
    column: Indices,
) -> None:
    """Best entries in a square around each point: at every pixel the best member of the pixel's best group.

    Parameters
    ----------
    maps, spread
        See `pickcal.picking.matching.Responses`.
    weights, split
        Entries `(h, k)`, and where the odd part of k begins.
    members, starts
        See `best_member`.
    groups, group
        Of the pixels of a window: score of the best group, -inf where none was looked at, and which it is, or its
        half-turn, which has the same members.
    corner
        First pixel `(y, x)` of the window.
    y, x
        Points, pixels of the window.
    reach, least
        Half the side of the square, pixels; pixels whose groups score less than this share of the point's are left out.
    sign
        +1 for the highest scores, -1 for the lowest.
    score, entry, row, column
        Filled, `(points, entries)`: score times the sign, the best first; entry, -1 where there are no more; the
        pixel of the window. No entry comes twice.
    """
    face = np.float32(sign)
    count, most = len(starts) - 1, score.shape[1]
    for i in range(y.shape[0]):
        scores, entries, rows, columns = score[i], entry[i], row[i], column[i]
        scores[:], entries[:] = np.float32(-3e38), -1
        peak = groups[y[i], x[i]]
        floor = max(peak - np.float32(1 - least) * abs(peak), np.float32(-3e38))  # scores may all be below 0
        for py in range(max(y[i] - reach, 0), min(y[i] + reach + 1, group.shape[0])):
            for px in range(max(x[i] - reach, 0), min(x[i] + reach + 1, group.shape[1])):
                if groups[py, px] < floor:
                    continue
                which = group[py, px] % count
                some = members[starts[which] : starts[which + 1]]
                product, found = best_of_members(maps[corner[0] + py, corner[1] + px], weights, split, some, face)
                best = product / spread[corner[0] + py, corner[1] + px]
                at = 0
                while at < most - 1 and entries[at] != found:
                    at += 1
                if best <= scores[at]:
                    continue
                while at > 0 and scores[at - 1] < best:
                    scores[at], entries[at] = scores[at - 1], entries[at - 1]
                    rows[at], columns[at] = rows[at - 1], columns[at - 1]
                    at -= 1
                scores[at], entries[at], rows[at], columns[at] = best, found, py, px


@compiled
def correlate(image: Complex64, cosines: Float32, sines: Float32, out: Complex64) -> None:
    """Multiply an image's spectrum, `(ky, kx)`, with real spectra that are given for ky from 0 to the middle.

    `cosines`, which -ky does not change, and `sines`, whose sign it does, are `(ky, kx, k)`; `out` is `(ky, kx, k)`.
    """
    height = image.shape[0]
    for i in range(cosines.shape[0]):
        opposite = (height - i) % height
        for j in range(image.shape[1]):
            one, two = image[i, j], image[opposite, j]
            for k in range(out.shape[2]):
                total = cosines[i, j, k] + sines[i, j, k]
                out[i, j, k] = complex(one.real * total, one.imag * total)
            if opposite != i:
                for k in range(out.shape[2]):
                    rest = cosines[i, j, k] - sines[i, j, k]
                    out[opposite, j, k] = complex(two.real * rest, two.imag * rest)


@compiled
def patch_products(maps: Float32, weights: Float32, y: Indices, x: Indices, out: Float32) -> None:
    """Product of `weights[point]` with the maps on a square around each point: `out` is `(points, side, side)`."""
    radius = out.shape[1] // 2
    for i in range(y.shape[0]):
        factors = weights[i]
        for row in range(out.shape[1]):
            line, sums = maps[y[i] - radius + row], out[i, row]
            for column in range(out.shape[2]):
                pixel = line[x[i] - radius + column]
                total = np.float32(0)
                for k in range(factors.shape[0]):
                    total += factors[k] * pixel[k]
                sums[column] = total


@compiled
def weighted_neighbourhood(
    maps: Float32, along_y: Float32, along_x: Float32, y: Indices, x: Indices, out: Float32
) -> None:
    """Interpolate all maps: `out[point]` is the sum over taps of `along_y along_x maps`; out is `(points, k)`."""
    side = along_y.shape[1]
    radius = side // 2
    for i in range(y.shape[0]):
        sums = out[i]
        sums[:] = 0
        for row in range(side):
            line = maps[y[i] - radius + row]
            for column in range(side):
                weight = along_y[i, row] * along_x[i, column]
                pixel = line[x[i] - radius + column]
                for k in range(sums.shape[0]):
                    sums[k] += weight * pixel[k]


@compiled
def cut_between(image: Float32, along_y: Float32, along_x: Float32, y: Indices, x: Indices, out: Float32) -> None:
    """Interpolate squares of a periodic image: first along y, then along x; `out` is `(points, side, side)`."""
    height, width = image.shape
    count, side = along_y.shape[1], out.shape[1]
    wide = side + count - 1
    before = wide // 2
    lines, line = np.empty((wide, wide), np.float32), np.empty(wide, np.float32)
    for i in range(y.shape[0]):
        left = x[i] - before
        for row in range(wide):
            source, copied = image[(y[i] - before + row) % height], lines[row]
            if left >= 0 and left + wide <= width:
                part = source[left : left + wide]
                for column in range(wide):
                    copied[column] = part[column]
            else:
                for column in range(wide):
                    copied[column] = source[(left + column) % width]
        for row in range(side):
            line[:] = 0
            for tap in range(count):
                weight, one = along_y[i, tap], lines[row + tap]
                for column in range(wide):
                    line[column] += weight * one[column]
            sums = out[i, row]
            sums[:] = 0
            for tap in range(count):
                weight, one = along_x[i, tap], line[tap : tap + side]
                for column in range(side):
                    sums[column] += weight * one[column]


@compiled
def largest_square(image: Float32, y: Indices, x: Indices, radius: float, out: Float32) -> None:
    """Largest squared value of an image within a radius (pixels) of each point; beyond the border its edge counts."""
    reach = int(np.ceil(radius))
    height, width = image.shape
    for i in range(y.shape[0]):
        best = np.float32(0)
        for dy in range(-reach, reach + 1):
            line = image[min(max(y[i] + dy, 0), height - 1)]
            half = int(np.floor(np.sqrt(max(radius * radius - dy * dy, 0.0)))) if abs(dy) <= radius else -1
            first, last = max(x[i] - half, 0), min(x[i] + half, width - 1)
            if half >= 0:
                nearest = line[min(max(x[i], 0), width - 1)]  # where all of the disc's row lies outside
                best = max(best, nearest * nearest)
            for column in range(last + 1 - first):
                square = line[first + column] * line[first + column]
                best = square if square > best else best
        out[i] = best


@compiled
def mark_maxima(scores: Float32, marked: NDArray[np.bool_]) -> None:
    """Mark pixels that are at least as high as their eight neighbours and not -inf."""
    height, width = scores.shape
    for i in range(height):
        above, below = max(i - 1, 0), min(i + 1, height - 1)
        for j in range(width):
            value = scores[i, j]
            marked[i, j] = False
            if value < -3e38:
                continue
            left, right = max(j - 1, 0), min(j + 1, width - 1)
            if value < scores[i, left] or value < scores[i, right]:
                continue
            marked[i, j] = value >= max(
                scores[above, left], max(scores[above, j], scores[above, right])
            ) and value >= max(scores[below, left], max(scores[below, j], scores[below, right]))


@compiled
def keep_apart(y: NDArray[np.float64], x: NDArray[np.float64], distance: float, alive: NDArray[np.bool_]) -> None:
    """Go through points in their order and strike out what is nearer than a distance to one that was kept."""
    count = y.shape[0]
    y0, x0 = y.min(), x.min()
    height = int((y.max() - y0) / distance) + 1
    width = int((x.max() - x0) / distance) + 1
    last = np.full(height * width, -1, np.int64)
    earlier = np.empty(count, np.int64)
    for i in range(count):
        row, column = int((y[i] - y0) / distance), int((x[i] - x0) / distance)
        free = True
        for r in range(max(row - 1, 0), min(row + 2, height)):
            for c in range(max(column - 1, 0), min(column + 2, width)):
                j = last[r * width + c]
                while j >= 0 and free:
                    free = (y[i] - y[j]) ** 2 + (x[i] - x[j]) ** 2 >= distance * distance
                    j = earlier[j]
        alive[i] = free
        if free:
            earlier[i] = last[row * width + column]
            last[row * width + column] = i
