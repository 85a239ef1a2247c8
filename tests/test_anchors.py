"""Anchors of an explanatory graph: against a literal version in Python floats, and on things that move."""

import math

import numpy as np
import pytest
import torch

from microtome.disentangle import anchors as module
from microtome.disentangle.anchors import (
    Anchors,
    chosen_anchors,
    fields_of,
    followed,
    learn_anchors,
    likeliest,
    patch_weights,
    places,
    similarity,
    usual_and_error,
)
from microtome.disentangle.graph import (
    COUNTS,
    GraphLayer,
    evidence,
    evident_nodes,
    hung_nodes,
    hung_on,
    infer,
    learn,
)
from microtome.disentangle.graph_inference import SPREAD, LayerMaps, Nodes, Upper, entities_seen_from, look, shift_of
from microtome.disentangle.graph_metrics import chosen_filters, chosen_nodes
from microtome.networks import LayerGeometry
from tests.test_graph import seen_at

SIDE = 11


def scene(images, seed, *, offset=None, filters=12):
    """Maps of a thing of several filters that lies anywhere, over weak noise; and where it lies."""
    draw = torch.Generator().manual_seed(seed)
    axis = (torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE
    thing = 0.5 + 0.3 * (torch.rand(images, 2, generator=draw, dtype=torch.float64) - 0.5)
    noise = 0.3 * torch.rand(images, filters, SIDE, SIDE, generator=draw, dtype=torch.float64)
    about = 0.3 * (torch.rand(filters, 2, generator=torch.Generator().manual_seed(77), dtype=torch.float64) - 0.5)
    thing = thing if offset is None else thing + offset
    x, y = (axis - (thing[:, None] + about)[..., place, None] for place in (0, 1))
    maps = 3 * torch.exp(-(y[..., :, None] ** 2 + x[..., None, :] ** 2) / (2 * 0.06**2)) + noise
    return LayerMaps(maps, axis, axis), thing


@pytest.fixture(scope="module")
def found():
    """Anchors of 24 pictures and their moved copies, in float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PATCHES", 40)
        patch.setattr(module, "KEPT", 8)
        offset = 0.15 * (torch.rand(24, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2 - 1)
        layer, _ = scene(24, 1)
        moved, _ = scene(24, 1, offset=offset)
        yield learn_anchors(layer, moved, offset), layer, moved, offset


def literal_places(anchors, layer, image):
    """Peak of s, mean place and variance of every anchor in a picture, cell by cell."""
    maps = layer.maps[image].tolist()
    filters, rows, columns = len(maps), len(maps[0]), len(maps[0][0])
    basis, mean = anchors.basis.tolist(), anchors.mean.tolist()
    z = {}
    for r in range(rows):
        for c in range(columns):
            v = [maps[f][r][c] for f in range(filters)]
            length = max(math.sqrt(sum(value**2 for value in v)), 1e-12)
            u = [value / length - mean[f] for f, value in enumerate(v)]
            z[r, c] = [sum(u[f] * basis[f][d] for f in range(filters)) for d in range(len(basis[0]))]
    side, templates, weights = len(anchors.weights), anchors.templates.tolist(), anchors.weights.tolist()
    found = []
    for number, template in enumerate(templates):
        s = {}
        for r, c in z:
            total = seen = 0.0
            for i in range(side):
                for j in range(side):
                    there = z.get((r + i - side // 2, c + j - side // 2))
                    if there is not None:
                        seen += sum(template[d][i][j] * there[d] for d in range(len(there)))
                        total += weights[i][j]
            s[r, c] = seen / total / float(anchors.scale[number])
        highest = max(s.values())
        chance = {cell: math.exp(module.BETA * (value - highest)) for cell, value in s.items()}
        whole = sum(chance.values())
        x = sum(own * float(layer.x[c]) for (_, c), own in chance.items()) / whole
        y = sum(own * float(layer.y[r]) for (r, _), own in chance.items()) / whole
        apart = sum(
            own * ((float(layer.x[c]) - x) ** 2 + (float(layer.y[r]) - y) ** 2) for (r, c), own in chance.items()
        )
        found.append((highest, x, y, apart / whole / 2))
    return np.array(found)


def test_anchors_are_found_as_the_formula_says(found):
    anchors, layer, _, _ = found
    one = LayerMaps(layer.maps[:1], layer.x, layer.y)
    upper, seen = anchors.above(one)
    wanted = literal_places(anchors, layer, 0)
    np.testing.assert_allclose(seen.score[0, 0].numpy(), wanted[:, 0], rtol=1e-9)
    own = [(wanted[a, 1:3] - anchors.home[a].numpy()) / float(anchors.slope[a]) for a in range(len(wanted))]
    unsure = np.mean([wanted[a, 3] / float(anchors.slope[a]) ** 2 for a in range(len(wanted))])
    usual, error = float(anchors.usual_move) ** 2, float(anchors.error) ** 2
    share = usual / (usual + error + unsure)
    moved = np.tile(share * sum(own) / len(own), (len(own), 1))  # all of them agree on one
    np.testing.assert_allclose(upper.displacement[0].numpy(), moved, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(seen.position[0, 0].numpy(), anchors.home.numpy() + moved, rtol=1e-8)
    np.testing.assert_allclose(
        anchors.sureness(seen)[0].numpy(), module.BETA * (wanted[:, 0] - anchors.usual.numpy()), rtol=1e-8, atol=1e-9
    )


def test_weights_are_a_gauss_in_the_frame():
    weights = patch_weights(scene(1, 0)[0])
    reach = math.ceil(module.SPREAD * SIDE)
    assert weights.shape == (2 * reach + 1,) * 2
    assert float(weights[reach, reach]) == 1
    assert float(weights[0, reach + 1]) == pytest.approx(math.exp(-(reach**2 + 1) / SIDE**2 / (2 * module.SPREAD**2)))


def test_slope_and_sigma_are_the_literal_ones():
    rng = np.random.default_rng(0)
    before, offset = rng.random((9, 2, 2)), rng.normal(0, 0.1, (9, 2))
    after = before + np.array([0.8, 0.4])[None, :, None] * offset[:, None] + rng.normal(0, 0.02, (9, 2, 2))
    slope, sigma = followed(*map(torch.from_numpy, (before, after, offset)))
    for number in range(2):
        d = after[:, number] - before[:, number]
        wanted = sum(np.cov(offset[:, a], d[:, a])[0, 1] for a in (0, 1)) / sum(
            offset[:, a].var(ddof=1) for a in (0, 1)
        )
        assert float(slope[number]) == pytest.approx(wanted)
        left = np.mean([np.sum((d[i] / wanted - offset[i]) ** 2) for i in range(9)]) / 4
        assert float(sigma[number]) == pytest.approx(max(math.sqrt(left), module.LEAST_SIGMA))


def test_how_far_things_lie_apart_and_how_well_that_is_measured_are_the_literal_ones():
    rng = np.random.default_rng(1)
    meant, offset = rng.normal(0, 0.1, (40, 2)), rng.normal(0, 0.1, (40, 2))
    before, after = meant + rng.normal(0, 0.03, (40, 2)), meant + offset + rng.normal(0, 0.03, (40, 2))
    usual, error = usual_and_error(*map(torch.from_numpy, (before, after, offset)))
    wanted = np.mean([sum((after[i] - before[i] - offset[i]) ** 2) for i in range(40)]) / 4
    every = [*before, *after]
    middle = sum(every) / 80
    whole = np.mean([sum((own - middle) ** 2) for own in every]) / 2
    assert float(error) == pytest.approx(math.sqrt(wanted))
    assert float(usual) == pytest.approx(math.sqrt(whole - wanted))


def test_the_likeliest_displacement_is_nearest_to_what_is_meant():
    rng = np.random.default_rng(2)
    meant, offset = rng.normal(0, 0.1, (4000, 2)), rng.normal(0, 0.1, (4000, 2))
    before, after = (own + rng.normal(0, 0.06, (4000, 2)) for own in (meant, meant + offset))
    measured = torch.from_numpy(before)
    usual, error = usual_and_error(measured, torch.from_numpy(after), torch.from_numpy(offset))
    assert float(error) == pytest.approx(0.06, abs=0.002)

    def missed(by):
        found = likeliest(measured, usual, torch.full((4000, 1), by)).numpy()
        return np.mean((found - meant) ** 2)

    wide = math.sqrt(0.1**2 + 0.1**2 / 2)  # of things in pictures and in moved copies
    assert float(usual) == pytest.approx(wide, abs=0.003)
    assert missed(float(error)) < missed(0.0)  # nearer than what is measured
    literal = [d * wide**2 / (wide**2 + 0.06**2) for d in before[:5]]
    np.testing.assert_allclose(likeliest(measured[:5], torch.tensor(wide), torch.full((5, 1), 0.06)), literal)


def test_what_nothing_measures_is_as_usual_and_what_is_exact_is_taken():
    still, offset = torch.zeros(6, 2), torch.tensor([[0.1, -0.1]] * 3 + [[-0.1, 0.1]] * 3)
    usual, error = usual_and_error(still, still + offset, offset)
    assert float(error) == 0
    assert torch.allclose(likeliest(offset, usual, error.expand(6, 1)), offset)
    assert torch.allclose(likeliest(offset, usual, torch.full((6, 1), 1e6)), torch.zeros(6, 2), atol=1e-9)


def test_a_frozen_place_has_the_least_slope_and_a_wide_sigma():
    still, offset = torch.full((6, 1, 2), 0.5), torch.tensor([[0.1, -0.1]] * 3 + [[-0.1, 0.1]] * 3)
    slope, sigma = followed(still, still, offset)
    assert float(slope) == pytest.approx(module.LEAST_SLOPE)
    assert float(sigma) == pytest.approx(math.sqrt(0.02 / 4))


def test_anchors_follow_a_thing_that_lies_elsewhere_in_pictures_never_seen(found):
    anchors = found[0]
    offset = torch.tensor([[0.12, -0.1]]).double().repeat(10, 1)
    before, after = (anchors.above(scene(10, 9, offset=own)[0])[0].displacement for own in (0 * offset, offset))
    assert float(anchors.error) < 0.1 * float(anchors.usual_move)  # the thing is all there is
    assert float(((after - before) - offset[:, None]).norm(dim=2).median()) < 0.5 / SIDE


def test_a_picture_has_the_same_bytes_whoever_it_is_looked_up_with(found):
    anchors, layer, _, _ = found
    whole = LayerMaps(layer.maps.float(), layer.x.float(), layer.y.float())
    single = Anchors(**{name: value.float() for name, value in vars(anchors).items()})
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    every, mixed = single.above(whole)[0], single.above(whole.of(order))[0]
    assert torch.equal(every.displacement[order], mixed.displacement)
    alone = single.above(whole.of(slice(7, 8)))[0]
    assert torch.equal(every.displacement[7:8], alone.displacement)


def test_the_same_seed_learns_the_same_bytes(found, monkeypatch):
    monkeypatch.setattr(module, "PATCHES", 6)
    monkeypatch.setattr(module, "ROUNDS", 1)
    _, layer, moved, offset = found
    one, two, other = (learn_anchors(layer, moved, offset, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(value, getattr(two, name)) for name, value in vars(one).items())
    assert not torch.equal(one.templates, other.templates)


def test_the_mean_place_is_the_peak_where_only_one_cell_answers():
    found = torch.zeros(1, 1, 3, 4)
    found[0, 0, 2, 1] = 100.0
    axis = torch.arange(4.0)
    assert places(found, axis, axis[:3])[0].tolist() == [[[1.0, 2.0]]]


def test_the_doubt_about_a_place_is_the_literal_variance_along_one_axis():
    draw = torch.Generator().manual_seed(3)
    found = torch.rand(2, 3, 4, 5, generator=draw, dtype=torch.float64)
    x, y = torch.linspace(0.1, 0.9, 5).double(), torch.linspace(0.2, 0.8, 4).double()
    place, got = places(found, x, y)
    for picture, anchor in ((0, 0), (1, 2)):
        chance = {
            (r, c): math.exp(module.BETA * float(found[picture, anchor, r, c])) for r in range(4) for c in range(5)
        }
        px, py = place[picture, anchor].tolist()
        square = sum(own * ((float(x[c]) - px) ** 2 + (float(y[r]) - py) ** 2) for (r, c), own in chance.items())
        assert float(got[picture, anchor]) == pytest.approx(square / sum(chance.values()) / 2)


def test_the_anchors_kept_are_the_least_in_doubt_of_the_half_that_follows_best(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    sigma = torch.tensor([0.5, 0.1, 0.3, 0.2, 0.9, 0.4])
    doubt = torch.tensor([0.01, 0.4, 0.2, 0.3, 0.0, 0.02])
    assert chosen_anchors(sigma, doubt).tolist() == [2, 3]  # 1, 3, 2 follow best


def test_of_patches_that_follow_alike_those_found_in_one_place_are_kept(found):
    anchors, layer, _, _ = found
    fields = torch.stack([fields_of(layer.maps[[image]], anchors.mean, anchors.basis)[0] for image in range(24)])
    answer = torch.stack([similarity(field, anchors.templates, anchors.weights) for field in fields])
    doubt = places(answer / anchors.scale[:, None, None], layer.x, layer.y)[1].mean(0) / anchors.slope.square()
    assert bool((doubt[1:] >= doubt[:-1]).all())


# ---- nodes that hang on anchors


def hung(found):
    anchors, layer, moved, _ = found
    return hung_on(anchors, layer, moved), LayerMaps(torch.cat([layer.maps, moved.maps]), layer.x, layer.y)


def test_what_is_seen_from_anchors_is_the_literal_mean():
    layer, _ = scene(3, 2, filters=2)
    upper = Upper(torch.rand(3, 4, 2, dtype=torch.float64) * 0.1, torch.tensor([0.1, 0.2, 0.1, 0.3]).double())
    chosen = torch.tensor([0, 1, 3])
    shift = shift_of(chosen, upper)
    w = [1 / float(upper.sigma[p]) ** 2 for p in chosen]
    wanted = sum(own * upper.displacement[:, p] for own, p in zip(w, chosen, strict=True)) / sum(w)
    torch.testing.assert_close(shift, wanted)
    got = entities_seen_from(layer, shift)
    for row, column in ((0, 0), (5, 6), (10, 3)):
        total = 0.0
        for image in range(3):
            x, y = (float(layer.x[column] + shift[image, 0]), float(layer.y[row] + shift[image, 1]))
            total += sum(
                math.exp(-((x - float(layer.x[c])) ** 2 + (y - float(layer.y[r])) ** 2) / (2 * SPREAD**2))
                * float(layer.maps[image, 1, r, c])
                for r in range(SIDE)
                for c in range(SIDE)
            )
        assert float(got[1, row, column]) == pytest.approx(total / 3)


def test_first_nodes_lie_where_their_filter_is_strongest_and_apart(found):
    above, layer = hung(found)
    nodes = hung_nodes(layer, (above.upper, above.seen), 2)
    assert nodes.averaged
    assert bool(((nodes.mu[:, 0] - nodes.mu[:, 1]).norm(dim=1) > 0.05).all())


def test_filters_have_as_many_nodes_as_explain_the_second_half(found):
    above, layer = hung(found)
    nodes = evident_nodes(layer, (above.upper, above.seen), above.second)
    counts = nodes.there.sum(1)
    assert set(counts.tolist()) <= set(COUNTS)
    assert int(counts.max()) <= 4  # each filter answers to one place of the thing, a little wider than half a cell
    first, second = nodes.mu[:, 0], nodes.mu[:, 1]  # its strongest places, which are neighbours
    assert bool(((first - second).norm(dim=1) < 2 / SIDE).all())


def test_absent_nodes_take_nothing_and_leave_the_others_as_they_are():
    layer, _ = scene(4, 3, filters=3)
    mu, sigma = torch.rand(3, 4, 2, dtype=torch.float64), torch.full((3, 4), 0.1, dtype=torch.float64)
    present = torch.tensor([[True, True, False, False]] * 3)
    padded, plain = look(Nodes(mu, sigma, present=present), layer), look(Nodes(mu[:, :2], sigma[:, :2]), layer)
    assert float(padded.mass[:, 2:].abs().max()) == float(padded.score[:, :, 2:].abs().max()) == 0
    torch.testing.assert_close(padded.mass[:, :2], plain.mass)
    torch.testing.assert_close(padded.position[:, :, :2], plain.position)
    torch.testing.assert_close(padded.log_likelihood, plain.log_likelihood)


def test_an_averaged_place_is_the_mean_under_the_answer():
    layer, _ = scene(2, 4, filters=1)
    nodes = Nodes(torch.tensor([[[0.5, 0.4]]]).double(), torch.tensor([[0.05]]).double(), averaged=True)
    seen = look(nodes, layer)
    steps = np.linspace(-0.15, 0.15, 6)
    total, place = 0.0, np.zeros(2)
    for dx in steps:
        for dy in steps:
            x, y = 0.5 + dx, 0.4 + dy
            f = sum(
                math.exp(-((x - float(layer.x[c])) ** 2 + (y - float(layer.y[r])) ** 2) / (2 * SPREAD**2))
                * float(layer.maps[1, 0, r, c])
                for r in range(SIDE)
                for c in range(SIDE)
            )
            a = f * math.exp(-(dx**2 + dy**2) / (2 * 0.05**2))
            total, place = total + a, place + a * np.array([x, y])
    np.testing.assert_allclose(seen.position[1, 0, 0].numpy(), place / total, rtol=1e-4)


def test_a_graph_that_hangs_on_anchors_follows_and_a_papers_one_does_not(found):
    anchors, layer, moved, offset = found
    above, both = hung(found)
    graph, frozen = learn([both, both], above, rounds=3), learn([layer], rounds=6)
    slopes = []
    for made, uppers in ((graph, [anchors.above(own)[0] for own in (layer, moved)]), (frozen, [None, None])):
        before, after = (
            infer(made, [own] * len(made), upper)[-1] for own, upper in zip((layer, moved), uppers, strict=True)
        )
        there = made[-1].nodes.there.flatten()
        apart = (after.position - before.position).flatten(1, 2)[:, there]
        slopes.append(float((apart * offset[:, None]).sum() / (offset[:, None] ** 2).expand_as(apart).sum()))
    assert slopes[0] > 0.85
    assert slopes[1] < 0.5


def test_sureness_goes_down_the_layers_as_a_mean_over_parents():
    nodes = Nodes(torch.zeros(1, 2, 2), torch.ones(1, 2), torch.tensor([[[0, 1], [1, 2]]]))
    below = Nodes(torch.zeros(1, 1, 2), torch.ones(1, 1), torch.tensor([[[0, 1]]]))
    graph = [GraphLayer(own, None, torch.zeros(1), ()) for own in (nodes, below)]
    top, low = evidence(graph, torch.tensor([[1.0, 3.0, 8.0]]))
    assert top.tolist() == [[[2.0, 5.5]]]
    assert low.tolist() == [[[3.75]]]


def test_the_nodes_that_follow_best_among_the_strong_are_chosen(monkeypatch):
    monkeypatch.setattr("microtome.disentangle.graph_metrics.STRONG", 3)
    rng = np.random.default_rng(0)
    before, offset = rng.random((8, 5, 2)), rng.normal(0, 0.1, (8, 2))
    error = np.array([0.05, 0.0, 0.2, 0.01, 0.3])
    after = before + offset[:, None] + error[None, :, None] * rng.normal(0, 1, (8, 5, 2))
    score = np.tile([3.0, 0.5, 2.0, 4.0, 0.0], (8, 1))  # node 1 follows best, but is not among the strong
    one, two = (seen_at(place[:, None], score[:, None]) for place in (before, after))
    assert chosen_nodes(one, two, offset, count=2).tolist() == [3, 0]
    assert chosen_nodes(one, None, None, count=2).tolist() == [3, 0]


def test_filters_are_chosen_as_the_nodes_are(monkeypatch):
    monkeypatch.setattr("microtome.disentangle.graph_metrics.STRONG", 3)
    rng = np.random.default_rng(1)
    of = LayerGeometry("toy", 4, (12, 12), (4.0, 4.0), (8.0, 8.0), (24.0, 24.0), False)
    cell, step = rng.integers(3, 9, (10, 2)), rng.integers(-2, 3, (10, 2))
    maps = np.zeros((2, 10, 4, 12, 12), np.float32)
    heights = (2.0, 0.5, 4.0, 1.0)  # filter 1 follows too, but is not among the strong
    for phase, moved in ((0, 0), (1, 1)):
        for number, goes in enumerate((0, 1, 1, rng.random((10, 1)) < 0.5)):
            row, column = (cell + moved * goes * step).T
            maps[phase, np.arange(10), number, row, column] = heights[number]
    offset = step[:, ::-1] * 8 / 96
    assert chosen_filters((maps[0], maps[1]), of, offset, size=(96, 96), count=2).tolist() == [2, 3]
    assert chosen_filters((maps[0], None), of, None, size=(96, 96), count=2).tolist() == [2, 0]
