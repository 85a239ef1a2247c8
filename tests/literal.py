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


def deviation(maps, landmark, start, jump, size, top) -> np.ndarray:
    """D_{f,k} as the survey's eq. 1-2 say it, filter by filter; every number a Python float."""
    images, filters, rows, columns = maps.shape
    result = []
    for f in range(filters):
        found = []
        for i in range(images):
            if np.isnan(landmark[i]).any():
                continue
            best, where = -math.inf, None
            for r in range(rows):
                for c in range(columns):
                    if float(maps[i, f, r, c]) > best:
                        best, where = float(maps[i, f, r, c]), (r, c)
            y, x = start[0] + where[0] * jump[0], start[1] + where[1] * jump[1]
            away = math.hypot(landmark[i][0] - x, landmark[i][1] - y) / math.hypot(*size)
            found.append((-best, i, away))
        kept = [away for _, _, away in sorted(found)[:top]]
        mean = sum(kept) / len(kept)
        result.append(math.sqrt(sum((value - mean) ** 2 for value in kept) / (len(kept) - 1)))
    return np.array(result)


def r_squared(position, landmark) -> float:
    """1 - residual / total sum of squares of both coordinates, by least squares with an intercept."""
    design = np.column_stack([np.ones(len(landmark)), landmark])
    fitted = design @ np.linalg.lstsq(design, position, rcond=None)[0]
    return 1 - ((position - fitted) ** 2).sum() / ((position - position.mean(0)) ** 2).sum()


def templates(n: int, beta: float = 4.0) -> np.ndarray:
    """(n^2 + 1, n, n): eq. 8, cell by cell."""
    tau = 0.5 / n**2
    result = np.empty((n * n + 1, n, n))
    for mu in range(n * n):
        for i in range(n):
            for j in range(n):
                apart = abs(i - mu // n) + abs(j - mu % n)
                result[mu, i, j] = tau * max(1 - beta * apart / n, -1)
    result[n * n] = -tau
    return result


def filter_loss(x, log_z=None) -> tuple[float, np.ndarray]:
    """Loss_f and its gradient for one filter's (images, n, n) maps, template by template."""
    n = x.shape[1]
    shapes = templates(n)
    prior = [1 / (1 + n**2)] * (n**2 + 1)
    s = np.array([[(x[i] * t).sum() for t in shapes] for i in range(len(x))])
    z = np.exp(s).sum(0) if log_z is None else np.exp(log_z)
    given = np.exp(s) / z
    p = given @ np.array(prior)
    loss, gradient = 0.0, np.zeros_like(x)
    for t in range(len(shapes)):
        for i in range(len(x)):
            loss -= prior[t] * given[i, t] * math.log(given[i, t] / p[i])
            gradient[i] -= prior[t] * shapes[t] * given[i, t] * (s[i, t] - math.log(z[t]) - math.log(p[i]))
    return loss, gradient


def unit_concept_scores(values, present, lit, rows) -> dict[str, float]:
    """All metrics of a unit and a concept, one picture after the other; nan where a sum is divided by nothing.

    values, present, lit: one per picture; rows: the pictures of top-and-random sampling.
    """
    values, present, lit = [float(v) for v in values], [bool(p) for p in present], [bool(x) for x in lit]
    true = sum(x and p for x, p in zip(lit, present, strict=True))
    missed = sum(x and not p for x, p in zip(lit, present, strict=True))
    false = sum(p and not x for x, p in zip(lit, present, strict=True))
    neither = sum(not p and not x for x, p in zip(lit, present, strict=True))
    recall, precision = _over(true, true + missed), _over(true, true + false)
    share = sum(present) / len(present)
    logs = [math.log(1.0 if p else 1e-8) for x, p in zip(lit, present, strict=True) if x]
    inside = [v for v, p in zip(values, present, strict=True) if p]
    outside = [v for v, p in zip(values, present, strict=True) if not p]
    flags = [float(p) for p in present]
    some, some_flags = [values[row] for row in rows], [flags[row] for row in rows]
    return {
        "recall": recall,
        "precision": precision,
        "f1": _over(2 * true, 2 * true + missed + false),
        "iou": _over(true, true + missed + false),
        "accuracy": (true + neither) / len(values),
        "balanced_accuracy": (recall + _over(neither, neither + false)) / 2,
        "inverse_balanced_accuracy": (precision + _over(neither, neither + missed)) / 2,
        "auc": _auc(flags, lit),
        "inverse_auc": _auc(values, present),
        "correlation": _pearson(values, flags),
        "correlation_top_random": _pearson(some, some_flags),
        "spearman": _pearson(_mid_ranks(values), _mid_ranks(flags)),
        "spearman_top_random": _pearson(_mid_ranks(some), _mid_ranks(some_flags)),
        "cosine": _over(sum(inside), math.sqrt(sum(v * v for v in values)) * math.sqrt(len(inside))),
        "wpmi": _over(sum(logs), len(logs)) - (math.log(share) if share else math.nan),
        "mad": _over(sum(inside), len(inside)) - _over(sum(outside), len(outside)),
        "auprc": _average_precision(flags, lit),
        "inverse_auprc": _average_precision(values, present),
    }


def _over(one: float, other: float) -> float:
    return one / other if other else math.nan


def _auc(scores, truth) -> float:
    """Share of (true, false) pairs that the scores order rightly; equal ones count half."""
    right = [s for s, t in zip(scores, truth, strict=True) if t]
    wrong = [s for s, t in zip(scores, truth, strict=True) if not t]
    return _over(sum((r > w) + (r == w) / 2 for r in right for w in wrong), len(right) * len(wrong))


def _average_precision(scores, truth) -> float:
    """Over falling thresholds: precision times the recall that each adds."""
    positives, total, before = sum(truth), 0.0, 0
    for threshold in sorted(set(scores), reverse=True):
        taken = [t for s, t in zip(scores, truth, strict=True) if s >= threshold]
        total += sum(taken) / len(taken) * (sum(taken) - before)
        before = sum(taken)
    return _over(total, positives)


def _mid_ranks(values) -> list[float]:
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def _pearson(one, other) -> float:
    if not one or max(one) == min(one) or max(other) == min(other):
        return math.nan
    a, b = math.fsum(one) / len(one), math.fsum(other) / len(other)
    top = math.fsum((x - a) * (y - b) for x, y in zip(one, other, strict=True))
    return top / math.sqrt(math.fsum((x - a) ** 2 for x in one) * math.fsum((y - b) ** 2 for y in other))
