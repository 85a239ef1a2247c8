"""The definitions of methods, written down slowly and literally in float64, to test the fast code against."""

from __future__ import annotations

import math

import numpy as np


def threshold(values: np.ndarray, tail_numerator: int, tail_denominator: int) -> float:
    """The (floor(tail n) + 1)-th largest of n values."""
    ordered = sorted(values.ravel().tolist(), reverse=True)
    return ordered[tail_numerator * len(ordered) // tail_denominator]


def upsampled(grid: np.ndarray, start, jump, size, masks) -> np.ndarray:
    """S_k: bilinear at (pixel centre - start) / jump, clamped to the outer cells; columns first, v0 + a (v1 - v0)."""
    height, width = grid.shape
    result = np.empty(masks)
    for y in range(masks[0]):
        for x in range(masks[1]):
            py = min(max(((y + 0.5) * size[0] / masks[0] - start[0]) / jump[0], 0.0), height - 1.0)
            px = min(max(((x + 0.5) * size[1] / masks[1] - start[1]) / jump[1], 0.0), width - 1.0)
            i, j = math.floor(py), math.floor(px)
            below, right = min(i + 1, height - 1), min(j + 1, width - 1)
            a, b = py - i, px - j
            top = float(grid[i, j]) + b * (float(grid[i, right]) - float(grid[i, j]))
            bottom = float(grid[below, j]) + b * (float(grid[below, right]) - float(grid[below, j]))
            result[y, x] = top + a * (bottom - top)
    return result


def dissect(maps, thresholds, labels, annotated, start, jump, size, masks, *, inclusive=False):
    """I (units, concepts), A (units, categories), L (concepts,), by loops over images, units and concepts.

    labels[image][concept] is a boolean mask; annotated[image][category] a flag.
    """
    units, concepts, categories = maps.shape[1], len(labels[0]), len(annotated[0])
    intersection = np.zeros((units, concepts), np.int64)
    activation = np.zeros((units, categories), np.int64)
    pixels = np.zeros(concepts, np.int64)
    for image in range(len(maps)):
        for concept in range(concepts):
            pixels[concept] += labels[image][concept].sum()
        for unit in range(units):
            value = upsampled(maps[image, unit], start, jump, size, masks)
            limit = float(thresholds[unit])
            lit = value >= limit if inclusive else value > limit
            for concept in range(concepts):
                intersection[unit, concept] += (lit & labels[image][concept]).sum()
            for category in range(categories):
                if annotated[image][category]:
                    activation[unit, category] += lit.sum()
    return intersection, activation, pixels
