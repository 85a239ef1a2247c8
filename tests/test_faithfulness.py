"""Deletion, insertion and pointing: the literal curves, what a right and a wrong map score, chance."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from microtome.quantify.intervals import mean_interval, paired_shares, wilson
from microtome.visualize.faithfulness import (
    SQUARES,
    STEPS,
    areas,
    blur,
    centred,
    evidence,
    joined,
    order_of,
    pointable,
    pointing,
    random_orders,
    scored,
    strongest,
)

SIDE = 32


class Spot(nn.Module):
    """Class 1 by how bright one square of the picture is."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.rows, self.columns = slice(row, row + 8), slice(column, column + 8)

    def forward(self, x):
        seen = 20 * x[:, :, self.rows, self.columns].mean((1, 2, 3))
        return torch.stack([torch.full_like(seen, 8.0), seen], 1)


def pictures(count: int) -> torch.Tensor:
    """Grey, with a bright square that the network looks at."""
    x = torch.full((count, 3, SIDE, SIDE), 0.1) + 0.05 * torch.rand(
        count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)
    )
    x[:, :, 8:16, 16:24] = 0.9
    return x


def test_areas_are_the_literal_ones():
    network, x, classes = Spot(8, 16), pictures(2), torch.tensor([1, 0])
    order = order_of(torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(3)))
    found, step = areas(network, x, classes, order), SQUARES**2 // STEPS
    soft, side = blur(x), SIDE // SQUARES
    for place in range(2):
        for name, start, end in (
            ("deletion", x[place], torch.zeros_like(x[place])),
            ("insertion", soft[place], x[place]),
        ):
            now, curve = start.clone(), []
            for count in range(STEPS + 1):
                for square in order[place, max(0, count - 1) * step : count * step].tolist():
                    r, c = divmod(square, SQUARES)
                    at = (slice(None), slice(r * side, (r + 1) * side), slice(c * side, (c + 1) * side))
                    now[at] = end[at]
                curve.append(float(network(now[None]).softmax(1)[0, classes[place]]))
            wanted = sum((a + b) / 2 / STEPS for a, b in itertools.pairwise(curve))
            assert getattr(found, name)[place] == pytest.approx(wanted, rel=1e-5)


def test_a_map_of_what_the_network_sees_beats_chance_and_a_wrong_one_does_not():
    network, x, classes = Spot(8, 16), pictures(6), torch.ones(6, dtype=torch.long)
    right = torch.zeros(6, SIDE, SIDE)
    right[:, 8:16, 16:24] = 1.0
    orders = random_orders(6, 0)
    chance = [areas(network, x, classes, order) for order in orders]
    for heat, better in ((right, True), (-right, False)):
        found = areas(network, x, classes, order_of(heat))
        for name, rising in (("deletion", False), ("insertion", True)):
            drawn = np.mean([getattr(one, name) for one in chance], 0)
            figure = scored(name, getattr(found, name), chance=drawn, control=drawn + 1e-6)
            assert figure.better is better
            assert figure.beats is better
            assert figure.beyond == pytest.approx(figure.apart - 1e-6)
            assert figure.apart == pytest.approx(figure.value - figure.chance)
            assert (figure.apart > 0) == (rising == better)
    parts = [areas(network, x[some], classes[some], order_of(right)[some]) for some in (slice(0, 4), slice(4, 6))]
    np.testing.assert_allclose(joined(parts).deletion, areas(network, x, classes, order_of(right)).deletion)


def test_orders_and_evidence():
    heat = torch.zeros(1, SIDE, SIDE)
    heat[0, 4:6, 6:8] = 2.0  # square (2, 3)
    order = order_of(heat)
    assert order[0, :2].tolist() == [2 * SQUARES + 3, 0]
    assert sorted(order[0].tolist()) == list(range(SQUARES**2))
    drawn = random_orders(3, 5)
    assert all(sorted(line.tolist()) == list(range(SQUARES**2)) for order in drawn for line in order)
    assert torch.equal(drawn, random_orders(3, 5))
    assert not torch.equal(drawn[0], drawn[1])
    maps = torch.tensor([1.0, -3.0, 1.0])[None, :, None, None]
    assert float(evidence("gradient", maps)) == 3
    assert float(evidence("integrated gradients", maps)) == -1


def test_pointing():
    objects = np.zeros((4, 224, 224), bool)
    objects[:, 100:120, 100:120] = True
    heat = torch.zeros(4, 224, 224)
    for place, (row, column) in enumerate([(110, 110), (100, 134), (100, 135), (10, 10)]):
        heat[place, row, column] = 1.0  # inside; 15 pixels beside the edge; 16; far
    found = pointing(heat, objects)
    assert found.hit.tolist() == [1, 1, 0, 0]
    grown = sum(
        min((r - a) ** 2 for a in (np.clip(r, 100, 119),)) + (c - np.clip(c, 100, 119)) ** 2 <= 15**2
        for r in range(224)
        for c in range(224)
    )
    assert found.chance == pytest.approx([grown / 224**2] * 4)
    figure = scored("pointing", found.hit, chance=found.chance, control=found.hit)
    assert (figure.beyond, figure.beats) == (0, False)
    assert (figure.low, figure.high) == wilson(2, 4)
    assert (figure.apart, figure.apart_low, figure.apart_high) == paired_shares(found.hit, found.chance)
    blur_like = scored("deletion", found.hit, chance=found.chance, control=found.hit)
    assert blur_like.apart_low == mean_interval(found.hit - found.chance)[1]
    large, none = np.ones((1, 224, 224), bool), np.zeros((1, 224, 224), bool)
    assert pointable(np.concatenate([objects[:1], large, none])).tolist() == [True, False, False]


def test_the_strongest_control_is_the_one_with_the_better_mean():
    values = {"edges": np.array([0.2, 0.4]), "centre": np.array([0.1, 0.4])}
    assert [strongest(name, values) for name in ("deletion", "insertion", "pointing")] == ["centre", "edges", "edges"]


def test_blur_keeps_the_mean_and_the_centre_is_in_the_centre():
    x = torch.rand(2, 3, 40, 60, generator=torch.Generator().manual_seed(1))
    soft = blur(x)
    assert soft.shape == x.shape
    assert soft.std() < 0.3 * x.std()
    torch.testing.assert_close(blur(torch.full_like(x, 0.3)), torch.full_like(x, 0.3))
    heat = centred((5, 7), 2)
    assert heat.shape == (2, 5, 7)
    assert divmod(int(heat[0].argmax()), 7) == (2, 3)
