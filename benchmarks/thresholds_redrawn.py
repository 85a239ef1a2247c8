"""Do intervals of detector counts hold less because thresholds stay? Worlds of maps; a JSON line per world and number.

    python benchmarks/thresholds_redrawn.py [--samples N]

A dissection's intervals hold each unit's threshold T, an order statistic of all its values. Here every resample of the
pictures also finds T anew, as another data set would, beside resamples that hold it. Labels are held in both, and
intervals are moved by the resamples' bias and rounded outwards, as a dissection's are. `coverage`: share of samples
whose interval holds the count's mean over samples; `deviation`: of the count over samples, and of the resamples.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

UNITS, CONCEPTS, SIDE, TAIL, MIN_IOU, RESAMPLES = 24, 12, 8, 0.02, 0.08, 200
WORLDS = {"pictures alike": (0.2, 2.0), "pictures differ": (0.5, 2.0), "pictures differ much": (1.0, 6.0)}
IMAGES = (10, 20, 50, 100)


def drawn(rng, images: int, world: str):
    """(images, units, cells) values, and (images, concepts, cells) masks: a rectangle in a quarter of the pictures.

    A unit's values in a picture share a log-normal gain; every other unit leans to one concept, the last the most.
    """
    spread, most = WORLDS[world]
    mask = np.zeros((images, CONCEPTS, SIDE, SIDE), bool)
    for image, concept in zip(*np.nonzero(rng.random((images, CONCEPTS)) < 0.25), strict=True):
        high, wide = rng.integers(2, 5, 2)
        y, x = rng.integers(0, SIDE - high + 1), rng.integers(0, SIDE - wide + 1)
        mask[image, concept, y : y + high, x : x + wide] = True
    lean = np.linspace(0, most, UNITS) * (np.arange(UNITS) % 2)
    own = mask[:, np.arange(UNITS) % CONCEPTS] * lean[:, None, None] * rng.gamma(2.0, 0.8, (images, UNITS, 1, 1))
    values = rng.lognormal(0, spread, (images, UNITS, 1, 1)) * rng.gamma(1.0, 1.0, (images, UNITS, SIDE, SIDE)) + own
    return values.reshape(images, UNITS, -1), mask.reshape(images, CONCEPTS, -1)


def labels_of(values, mask):
    """(units,) the concept of the highest IoU, at the thresholds of all these pictures."""
    flat = values.transpose(1, 0, 2).reshape(UNITS, -1)
    at = np.sort(flat, 1)[:, ::-1][:, int(np.floor(TAIL * flat.shape[1]))]
    lit = (values > at[:, None]).astype(float)
    both = np.einsum("nup,ncp->uc", lit, mask.astype(float))
    return (both / (lit.sum((0, 2))[:, None] + mask.sum((0, 2)) - both)).argmax(1), at


class Resampled:
    """Counts of detectors under weightings of the pictures."""

    def __init__(self, values, mask) -> None:
        self.labels, self.held = labels_of(values, mask)
        self.cells = values.shape[2]
        flat, own = (part.transpose(1, 0, 2).reshape(UNITS, -1) for part in (values, mask[:, self.labels]))
        order = np.argsort(-flat, 1)
        self.values, self.inside = (np.take_along_axis(part, order, 1) for part in (flat, own))
        self.picture, self.area = order // self.cells, mask[:, self.labels].sum(2)

    def count(self, weights, *, anew: bool) -> int:
        """Units above MIN_IOU; the threshold is the (floor(TAIL n) + 1)-th highest of the weighted values, or held."""
        times = weights[self.picture]
        at = self.held[:, None]
        if anew:
            place = (times.cumsum(1) <= np.floor(TAIL * weights.sum() * self.cells)).sum(1)
            at = np.take_along_axis(self.values, place[:, None], 1)
        lit = (self.values > at) * times
        both = (lit * self.inside).sum(1)
        whole = lit.sum(1) + weights @ self.area - both
        return int((both > MIN_IOU * whole).sum())


def sampled(rng, images: int, world: str):
    """A count, and of both kinds of resamples the interval and the deviation."""
    found = Resampled(*drawn(rng, images, world))
    value, rows = found.count(np.ones(images), anew=False), []
    weights = rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    for anew in (False, True):
        counts = np.array([found.count(own, anew=anew) for own in weights], float)
        low, high = np.quantile(counts, (0.025, 0.975)) - counts.mean() + value
        rows.append((np.floor(low + 1e-9), np.ceil(high - 1e-9), counts.std()))
    return value, *rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=300)
    samples = parser.parse_args().samples
    for number, world in enumerate(WORLDS):
        for images in IMAGES:
            rng = np.random.default_rng([number, images])
            rows = [sampled(rng, images, world) for _ in range(samples)]
            value, held, anew = (np.array(part) for part in zip(*rows, strict=True))
            line = {"world": world, "images": images, "samples": samples, "mean": round(value.mean(), 2)}
            line["deviation"] = round(value.std(), 2)
            for name, (low, high, spread) in (("held", held.T), ("anew", anew.T)):
                inside = ((low <= value.mean()) & (value.mean() <= high)).mean()
                width, deviation = round((high - low).mean(), 2), round(spread.mean(), 2)
                line[name] = {"coverage": round(inside, 3), "width": width, "deviation": deviation}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
