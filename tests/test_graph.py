"""Explanatory graph and part mining: against literal versions, and on blobs whose places are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from microtome.disentangle.graph import (
    RATE,
    ROUNDS,
    choose_parents,
    deviations,
    infer,
    learn,
    least_sigma,
    maximised,
    most_active,
    node_count,
    standardised,
    upper_of,
)
from microtome.disentangle.graph_inference import REACH, SPREAD, TAU, LayerMaps, Nodes, Seen, Upper, look
from microtome.disentangle.graph_metrics import JudgedLayer, MovedLayer, nodes_moved, purity, steadiness
from microtome.disentangle.parts import (
    DEFORMATION,
    Candidates,
    best_filter,
    cell_candidates,
    kept_patterns,
    locate,
    location_error,
    mean_position,
    mine,
    unit_candidates,
)
from microtome.networks import LayerGeometry
from microtome.quantify.shift import Shifted
from microtome.quantify.stability import cell_centres


def gauss(square, sigma):
    return math.exp(-square / (2 * sigma**2)) / (2 * math.pi * sigma**2)


def literal(nodes, layer, upper=None):
    """The E-step word by word, in Python floats."""
    images, filters, rows, columns = layer.maps.shape
    count = nodes.sigma.shape[1]
    mass, square = np.zeros((filters, count)), np.zeros((filters, count))
    pull, position = np.zeros((filters, count, 2)), np.zeros((images, filters, count, 2))
    score = np.zeros((images, filters, count))
    total, weight = 0.0, 0.0

    def entity(image, number, x, y):
        return sum(
            math.exp(-((x - float(layer.x[c])) ** 2 + (y - float(layer.y[r])) ** 2) / (2 * SPREAD**2))
            * max(float(layer.maps[image, number, r, c]), 0)
            for r in range(rows)
            for c in range(columns)
        )

    for image in range(images):
        for f in range(filters):
            centre, delta, factor = [], [], []
            for v in range(count):
                mu = [float(value) for value in nodes.mu[f, v]]
                if upper is None or nodes.parents is None:
                    centre.append(mu)
                    delta.append(float(nodes.sigma[f, v]))
                    factor.append(1.0)
                    continue
                parents = nodes.parents[f, v].tolist()
                m = len(parents)
                sigma = [float(upper.sigma[p]) for p in parents]
                moved = [[float(value) for value in upper.displacement[image, p]] for p in parents]
                precision = sum(1 / m / s**2 for s in sigma)
                shift = [sum(d[a] / (m * s**2) for d, s in zip(moved, sigma, strict=True)) / precision for a in (0, 1)]
                apart = sum(
                    ((d[0] - shift[0]) ** 2 + (d[1] - shift[1]) ** 2) / (2 * m * s**2)
                    for d, s in zip(moved, sigma, strict=True)
                )
                centre.append([mu[0] + shift[0], mu[1] + shift[1]])
                delta.append(math.sqrt(1 / precision))
                factor.append(1 / precision * math.prod(s ** (-2 / m) for s in sigma) * math.exp(-apart))
            grids = []
            for v in range(count):
                reach = min(REACH, 3 * float(nodes.sigma[f, v]))
                steps = [-reach + 2 * reach * k / 5 for k in range(6)]
                grids.append([(dx, dy) for dy in steps for dx in steps])
            own = [[factor[v] * gauss(dx**2 + dy**2, delta[v]) for dx, dy in grids[v]] for v in range(count)]
            dummy = TAU * sum(sum(values) for values in own) / count

            def every(x, y, f=f, centre=centre, delta=delta, factor=factor):
                return sum(
                    factor[w] * gauss((x - centre[w][0]) ** 2 + (y - centre[w][1]) ** 2, delta[w]) for w in range(count)
                )

            for v in range(count):
                best = -1.0
                for (dx, dy), a in zip(grids[v], own[v], strict=True):
                    x, y = centre[v][0] + dx, centre[v][1] + dy
                    there = entity(image, f, x, y)
                    share = there * a / (every(x, y) + dummy)
                    mass[f, v] += share
                    pull[f, v] += share * np.array([dx, dy]) / delta[v] ** 2
                    square[f, v] += share * (dx**2 + dy**2)
                    if there * a > best:
                        best, position[image, f, v] = there * a, (x, y)
                score[image, f, v] = best
            for r in range(rows):
                for c in range(columns):
                    x, y = float(layer.x[c]), float(layer.y[r])
                    there = entity(image, f, x, y)
                    total += there * math.log((every(x, y) + dummy) / (sum(factor) + dummy))
                    weight += there
    return mass, pull, square, position, score, total, weight


def small_layer(seed, images=3, filters=2, side=5):
    draw = torch.Generator().manual_seed(seed)
    places = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    return LayerMaps(torch.rand(images, filters, side, side, generator=draw, dtype=torch.float64), places, places)


def small_nodes(seed, filters=2, count=3, parents=None):
    draw = torch.Generator().manual_seed(seed)
    mu = torch.rand(filters, count, 2, generator=draw, dtype=torch.float64)
    return Nodes(mu, 0.04 + 0.1 * torch.rand(filters, count, generator=draw, dtype=torch.float64), parents)


@pytest.mark.parametrize("with_parents", [False, True])
def test_expectation_step_is_the_literal_one(with_parents, monkeypatch):
    monkeypatch.setattr("microtome.disentangle.graph_inference.CHUNK", 500)  # an image or two at a time
    layer, upper, parents = small_layer(0), None, None
    if with_parents:
        draw = torch.Generator().manual_seed(9)
        moved = 0.1 * torch.randn(3, 7, 2, generator=draw, dtype=torch.float64)
        upper = Upper(moved, 0.05 + 0.1 * torch.rand(7, generator=draw, dtype=torch.float64))
        parents = torch.randint(0, 7, (2, 3, 4), generator=draw)
    nodes = small_nodes(1, parents=parents)
    seen = look(nodes, layer, upper)
    mass, pull, square, position, score, total, weight = literal(nodes, layer, upper)
    for found, wanted in (
        (seen.mass, mass), (seen.pull, pull), (seen.square, square), (seen.position, position), (seen.score, score),
    ):  # fmt: skip
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-9)
    assert float(seen.log_likelihood.sum()) == pytest.approx(total, rel=1e-6)
    assert float(seen.weight.sum()) == pytest.approx(weight, rel=1e-6)


def test_maximisation_step_is_the_literal_one():
    layer, nodes = small_layer(3), small_nodes(4)
    seen = look(nodes, layer)
    widest = 1 / math.sqrt(3)
    after = maximised(nodes, seen, 3, least_sigma(nodes, layer))
    step = RATE * (float(nodes.sigma.min()) / 3**0.25) ** 2
    for f in range(2):
        for v in range(3):
            n = float(seen.mass[f, v])
            for axis in (0, 1):
                wanted = float(nodes.mu[f, v, axis]) + step * float(seen.pull[f, v, axis]) / n
                assert float(after.mu[f, v, axis]) == pytest.approx(min(max(wanted, 0), 1), abs=1e-12)
            sigma = math.sqrt(float(seen.square[f, v]) / 2 / n)
            assert float(after.sigma[f, v]) == pytest.approx(min(max(sigma, widest / 10), widest), abs=1e-12)


def test_parents_are_the_literal_ones():
    single, _, _ = blobs(6, 2, 5)
    layer = LayerMaps(*(value.double() for value in (single.maps, single.x, single.y)))
    above, below = look(small_nodes(6), layer), look(small_nodes(7), layer)
    home = above.position.mean(0)
    upper = Upper((above.position - home).flatten(1, 2), small_nodes(6).sigma.flatten())
    parents, affinity = choose_parents(below, upper, above)
    moves = upper.displacement.square().sum((0, 2))
    places = home.flatten(0, 1)
    fit = [
        n for n in range(6) if moves[n] >= moves.median() and bool(((places[n] > 0.1) & (places[n] < 0.9)).all())
    ] or list(range(6))
    own = (below.position - below.position.mean(0)).flatten(1, 2)
    for v in range(6):
        apart = {n: [float((own[i, v] - upper.displacement[i, n]).square().sum()) for i in range(6)] for n in fit}
        scale = np.mean([value for values in apart.values() for value in values])
        wanted = {
            n: sum(math.exp(-apart[n][i] / (2 * scale)) * float(above.score.flatten(1)[i, n]) for i in range(6))
            for n in fit
        }
        order = sorted(fit, key=lambda n: -wanted[n])[:15]
        assert parents.flatten(0, 1)[v].tolist() == order
        np.testing.assert_allclose(affinity.flatten(0, 1)[v].numpy(), [wanted[n] for n in order], rtol=1e-9)


def test_node_counts_are_the_papers():
    assert [node_count(side, side) for side in (28, 28, 14, 14)] == [40, 40, 20, 20]


SIDE, CELL = 13, 1 / 13


def blobs(images, filters, seed, *, absent=0):
    """Filters fire at fixed places relative to a thing that moves; in the last images it is not there."""
    draw = torch.Generator().manual_seed(seed)
    places = (torch.arange(SIDE) + 0.5) / SIDE
    thing = 0.5 + 0.24 * (torch.rand(images, 2, generator=draw) - 0.5)
    offset = 0.4 * (torch.rand(filters, 2, generator=draw) - 0.5)
    where = thing[:, None] + offset
    x, y = (places - where[..., axis, None] for axis in (0, 1))
    maps = 4 * torch.exp(-(y[..., :, None] ** 2 + x[..., None, :] ** 2) / (2 * 0.05**2))
    maps[images - absent :] = 0
    maps += 0.05 * torch.rand(images, filters, SIDE, SIDE, generator=draw)
    return LayerMaps(standardised(maps, deviations(maps)), places, places), where, thing


@pytest.fixture(scope="module")
def planted():
    """Two layers of eight filters on the same moving thing."""
    top, _, thing = blobs(80, 8, 0)
    low, where, _ = blobs(80, 8, 0)
    return [top, low], where, thing, learn([top, low], seed=0)


def leaders(seen):
    """Position of each filter's strongest node."""
    best = seen.score.sum(0).argmax(1)
    return seen.position[:, torch.arange(len(best)), best], best


def test_positions_track_the_translation_within_a_cell(planted):
    layers, where, _, graph = planted
    found, _ = leaders(infer(graph, layers)[1])
    assert float((found - where).norm(dim=2).mean()) < CELL


def test_nodes_that_move_with_the_thing_are_the_parents(planted):
    layers, _, thing, graph = planted
    seen = infer(graph, layers)
    _, best = leaders(seen[1])
    upper = upper_of(graph[0], seen[0])
    moved = thing - thing.mean(0)
    with_it = (upper.displacement - moved[:, None]).norm(dim=2).mean(0)
    chosen = graph[1].nodes.parents[torch.arange(len(best)), best]
    assert float(with_it[chosen].mean()) < float(with_it.mean())
    assert float(with_it[chosen].mean()) < CELL


def test_the_dummy_takes_the_mass_where_the_thing_is_absent():
    layer, _, _ = blobs(60, 6, 1, absent=20)
    graph = learn([LayerMaps(layer.maps[:40], layer.x, layer.y)], seed=0)
    share = []
    for images in (slice(0, 40), slice(40, 60)):
        some = layer.of(images)
        seen = look(graph[0].nodes, some)
        flat = LayerMaps(torch.ones_like(some.maps), some.x, some.y)
        whole = float(look(graph[0].nodes, flat).weight.sum())
        share.append(float(seen.mass.sum()) / float(seen.weight.sum()) * whole)
    assert share[1] < 0.8 * share[0]


def test_likelihood_does_not_fall_where_parents_are_frozen(planted):
    curve = np.array(planted[3][0].log_likelihood)
    assert len(curve) == ROUNDS + 1
    assert np.diff(curve).min() > -1e-3 * np.ptp(curve)
    below = np.array(planted[3][1].log_likelihood)
    assert np.diff(below)[2:].min() > -0.02 * np.ptp(below)  # new parents may cost a little
    assert below[-1] > below[0]


def test_the_same_seed_gives_the_same_graph_and_another_another(planted):
    layers, _, _, graph = planted
    again, other = learn(layers, seed=0, rounds=3), learn(layers, seed=1, rounds=3)
    third = learn(layers, seed=0, rounds=3)
    for one, two in zip(again, third, strict=True):
        assert torch.equal(one.nodes.mu, two.nodes.mu)
        assert torch.equal(one.nodes.sigma, two.nodes.sigma)
    assert not torch.equal(again[0].nodes.mu, other[0].nodes.mu)
    assert len(graph) == 2


def test_looking_the_training_images_up_gives_their_inferences_back(planted):
    layers, _, _, graph = planted
    seen = infer(graph, layers)
    for made, found in zip(graph, seen, strict=True):
        torch.testing.assert_close(found.position.mean(0), made.home)
    some = [layer.of(slice(3, 9)) for layer in layers]
    torch.testing.assert_close(infer(graph, some)[1].position, seen[1].position[3:9])


def test_deviations_come_from_the_background_where_there_is_one():
    maps = torch.tensor([[[[0.0, 2.0]]], [[[4.0, -2.0]]]])
    spread = deviations(maps)
    z = standardised(maps, spread)
    assert float(spread[0]) == pytest.approx(math.sqrt(5))
    assert float(z.min()) == 0
    assert float(deviations(maps * 10)[0]) == pytest.approx(10 * math.sqrt(5))
    assert float(deviations(maps * 0)[0]) == 1


# ---- parts


def test_shifts_pay_their_log_gauss():
    rng = np.random.default_rng(0)
    maps = rng.random((2, 3, 6, 6)).astype(np.float32)
    places = (np.arange(6) + 0.5) / 6
    found = cell_candidates(maps, places, places, 4)
    assert set(found.layer) == {4}
    for image in range(2):
        for number in range(3 * 36):
            f, r, c = number // 36, number // 6 % 6, number % 6
            assert found.filter[number] == f
            options = {
                (i, j): maps[image, f, i, j] - ((i - r) ** 2 + (j - c) ** 2) / 36 / (2 * DEFORMATION**2)
                for i in range(max(0, r - 2), min(6, r + 3))
                for j in range(max(0, c - 2), min(6, c + 3))
            }
            best = max(options, key=lambda key: options[key])
            assert found.response[image, number] == pytest.approx(options[best], abs=1e-5)
            np.testing.assert_allclose(found.position[image, number], [places[best[1]], places[best[0]]])


def test_number_of_patterns_follows_the_fitted_curve():
    x = np.arange(2000)
    for rate in (0.01, 0.05):
        score = 3 * np.exp(-np.sqrt(rate * x)) + 1
        assert kept_patterns(score) == pytest.approx(math.ceil(0.4 / rate), rel=0.15)


def test_a_planted_part_is_located_and_the_baselines_are_not_better():
    rng = np.random.default_rng(0)
    thing = 0.5 + 0.3 * (rng.random((40, 2)) - 0.5)
    offset = 0.2 * (rng.random((60, 2)) - 0.5)
    noise = rng.random((40, 1000, 2))
    position = np.concatenate([thing[:, None] + offset, noise], 1)
    response = np.concatenate([4 + rng.random((40, 60)), 0.3 * rng.random((40, 1000))], 1)
    candidates = Candidates(position, response, np.zeros(1060, int), np.arange(1060))
    boxes = {image: tuple(thing[image]) for image in (0, 7, 20)}
    templates = mine(candidates, boxes)
    assert all(set(template.pattern[:50]) <= set(range(60)) for template in templates)
    found, _ = locate(templates, candidates)
    fixed = mean_position(boxes, 40)
    assert np.linalg.norm(found - thing, axis=1).mean() < 0.5 * np.linalg.norm(fixed - thing, axis=1).mean()
    filtered, chosen = best_filter(position, boxes)
    assert chosen < 60
    np.testing.assert_allclose(filtered, thing, atol=1e-9)
    with pytest.raises(ValueError, match="two boxes"):
        mine(candidates, {0: (0.5, 0.5)})


def test_a_part_is_mined_from_the_most_active_units():
    rng = np.random.default_rng(1)
    maps = rng.random((7, 5, 4, 4)).astype(np.float32)
    maps[:, 3] = 0.5  # never changes
    maps[:, 1] *= np.where(rng.random((7, 1, 1)) < 0.5, 1, 0)  # high peaks in half of the pictures, in deviations
    x, y = (np.arange(4) + 0.5) / 4, (np.arange(4) + 0.5) / 4
    found = unit_candidates(maps, x, y, layer=2, count=3)
    flat = maps.astype(float)
    spread = [flat[:, f].std() or 1.0 for f in range(5)]
    peak = [np.mean([flat[i, f].max() / spread[f] for i in range(7)]) for f in range(5)]
    kept = sorted(sorted(range(5), key=lambda f: -peak[f])[:3])
    assert sorted(set(found.filter.tolist())) == kept
    z = np.stack([flat[:, f] / spread[f] for f in kept], 1).astype(np.float32)
    np.testing.assert_allclose(found.response, cell_candidates(z, x, y, 2).response, rtol=1e-6)
    chosen, deviation = most_active(torch.from_numpy(maps), 3)
    assert chosen.tolist() == kept
    np.testing.assert_allclose(deviation.numpy(), [spread[f] for f in kept], rtol=1e-6)
    assert most_active(torch.from_numpy(maps), None)[0].tolist() == list(range(5))


def test_errors_are_in_diagonals():
    found, places = np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([[43.0, 34.0], [3.0, 76.0]])
    error = location_error(found, places, (80, 80))
    assert error == pytest.approx([math.hypot(3, 6) / math.hypot(80, 80), 5 / math.hypot(80, 80)])


def seen_at(position, score):
    """What an E-step found: position (images, filters, nodes, 2), score (images, filters, nodes)."""
    position, score = torch.as_tensor(position), torch.as_tensor(score)
    one = torch.ones(score.shape[1:])
    return Seen(one, position[0], one, position, score, one.sum(1), one.sum(1), one)


def test_purity_is_the_share_of_the_top_pictures_in_which_a_node_is_on_a_part():
    draw = torch.Generator().manual_seed(3)
    seen = seen_at(torch.rand(30, 2, 3, 2, generator=draw), torch.rand(30, 2, 3, generator=draw))
    masks = np.random.default_rng(0).random((30, 4, 6 * 8)) < 0.5
    got = purity(seen, masks, (6, 8))
    for node in range(6):
        score = seen.score.flatten(1)[:, node].tolist()
        top = sorted(range(30), key=lambda image: -score[image])[:20]
        on = np.zeros(4)
        for image in top:
            x, y = seen.position.flatten(1, 2)[image, node].tolist()
            on += masks[image, :, int(y * 6) * 8 + int(x * 8)]
        assert got.part[node] == int(on.argmax())
        assert got.share[node] == pytest.approx(on.max() / 20)
    edge = seen_at(torch.ones(30, 1, 1, 2), torch.rand(30, 1, 1))  # the far edge lies in the last pixel
    assert purity(edge, np.ones((30, 1, 48), bool), (6, 8)).share[0] == 1


def test_moved_nodes_are_followed_by_number():
    position = torch.rand(2, 2, 15, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    score = torch.arange(60, dtype=torch.float64).reshape(2, 2, 15)
    before = [seen_at(position, score)]
    still = nodes_moved(before, before)
    assert still.shift.tolist() == [0, 0]
    assert still.kept.tolist() == [1, 1]
    aside = nodes_moved(before, [seen_at(position + torch.tensor([0.3, 0.4]), score)])
    assert aside.shift == pytest.approx([0.5, 0.5])
    turned = nodes_moved(before, [seen_at(position, -score)])  # of 30 nodes the lowest 20 are now the strongest
    assert turned.kept == pytest.approx([0.5, 0.5])
    assert turned.shift.tolist() == [0, 0]
    scaled = [seen_at(position, score), seen_at(position, score * 1e6)]
    assert nodes_moved(scaled, scaled).kept.tolist() == [1, 1]


def test_nodes_beside_filters_by_one_rule():
    """Filters that follow the thing beside nodes that follow it closer: both track, and the difference is paired."""
    rng = np.random.default_rng(0)
    thing = rng.uniform(20, 76, (60, 2))
    of = LayerGeometry("toy", 3, (12, 12), (4.0, 4.0), (8.0, 8.0), (24.0, 24.0), False)
    centres = cell_centres(of)
    maps = np.zeros((60, 3, 144), np.float32)
    for number in range(3):
        where = thing + rng.normal(0, 6, (60, 2))
        maps[np.arange(60), number, np.linalg.norm(centres[None] - where[:, None], axis=2).argmin(1)] = 1 + rng.random(
            60
        )
    position = (thing[:, None] + rng.normal(0, 1, (60, 6, 2))).reshape(60, 3, 2, 2) / 96
    score = rng.random((60, 3, 2)) + np.array([1.0, 0.0])
    best = np.argsort(-score.reshape(60, 6).mean(0))[:3]
    found = {
        (row.metric, row.of): row
        for row in steadiness(
            JudgedLayer(seen_at(position, score), maps.reshape(60, 3, 12, 12), of, {"eye": thing}),
            best,
            size=(96, 96),
            permutations=99,
        ).rows
    }
    nodes, filters = found["instability", "nodes"], found["instability", "filters"]
    wanted = []
    for node in best:
        top = np.argsort(-score.reshape(60, 6)[:, node].astype(np.float32))[:20]
        away = np.linalg.norm(position.reshape(60, 6, 2)[top, node] * 96 - thing[top], axis=1) / math.hypot(96, 96)
        wanted.append(away.std(ddof=1))
    assert nodes.value == pytest.approx(np.mean(wanted), rel=1e-9)
    assert (nodes.n, filters.n) == (3, 3)
    between = found["instability", "nodes minus filters"]
    assert between.value == nodes.value - filters.value
    assert between.high < 0
    assert between.n == 60
    assert found["tracks a landmark", "nodes"].value == 1
    assert found["either", "nodes"].value == 1
    assert found["instability", "best constant"].low is None
    assert found["instability", "random"].value > found["instability", "best constant"].value


def test_steadiness_says_who_follows_what_is_shown_and_what_standing_still_would_reach():
    """Nodes that go with the thing when it is moved, beside filters that stay where they were."""
    rng = np.random.default_rng(0)
    thing, offset = rng.uniform(30, 66, (60, 2)), rng.uniform(-12, 12, (60, 2))
    of = LayerGeometry("toy", 2, (12, 12), (4.0, 4.0), (8.0, 8.0), (24.0, 24.0), False)
    maps = rng.random((60, 2, 12, 12)).astype(np.float32)
    score = rng.random((60, 2, 1)) + 1
    before, after = (seen_at(where[:, None, None].repeat(2, 1) / 96, score) for where in (thing, thing + offset))
    moved = MovedLayer(after, maps, Shifted(offset, np.ones(60, bool)))
    layer, every = JudgedLayer(before, maps, of, {"eye": thing}, moved), np.arange(2)
    rows = steadiness(layer, every, size=(96, 96), permutations=9).rows
    found = {(row.metric, row.of): row for row in rows}
    assert (found["slope when moved", "nodes"].value, found["slope when moved", "filters"].value) == pytest.approx(
        (1, 0)
    )
    assert found["follows when moved", "nodes"].value == 1
    assert found["follows when moved", "filters"].value == 0
    instability, frozen = (
        found[name, "nodes"].value for name in ("instability", "instability, frozen at its own mean")
    )
    assert instability == pytest.approx(0, abs=1e-9)
    assert frozen == pytest.approx(np.mean([frozen_at_mean(thing, own) for own in score[..., 0].T]), rel=1e-5)
    assert found["instability of those that follow", "nodes"].n == 2
    assert ("instability of those that follow", "filters") not in found
    beside = steadiness(layer, every, alike=np.array([1]), size=(96, 96), permutations=9).rows
    alike = {(row.metric, row.of): row for row in beside}
    assert [row for row in beside if row.of not in ("filters chosen alike", "nodes minus filters chosen alike")] == rows
    own, filters, apart = (
        alike["instability", of] for of in ("nodes", "filters chosen alike", "nodes minus filters chosen alike")
    )
    assert (filters.n, apart.value) == (1, own.value - filters.value)
    assert apart.high < 0
    assert alike["slope when moved", "filters chosen alike"].value == 0
    still = steadiness(replace(layer, moved=None), every, size=(96, 96), permutations=9)
    assert still.slopes == {}
    assert {row.metric for row in rows} - {row.metric for row in still.rows} == {
        "slope when moved", "follows when moved",
        "instability, frozen at its own mean", "instability of those that follow",
    }  # fmt: skip


def frozen_at_mean(thing, score):
    top = np.argsort(-score.astype(np.float32), kind="stable")[:20]
    return (np.linalg.norm(thing[top] - thing[top].mean(0), axis=1) / math.hypot(96, 96)).std(ddof=1)
