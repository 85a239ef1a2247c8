"""Decision tree: rationales, node fits, greedy merging, against literal float64 versions and planted modes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from microtome.datasets.sampling import sampled
from microtome.disentangle import decision_tree
from microtome.disentangle.decision_nodes import PENALTY, Members, fit_leaf_pairs, fit_node, fit_unions
from microtome.disentangle.decision_tree import BETA, Merge, RationaleExamples, grow, replay
from microtome.disentangle.filter_parts import no_parts, parts_by_concept, parts_by_landmark
from microtome.disentangle.parse_paths import FilterShare, ParsedPictures
from microtome.disentangle.rationales import FilterScale, LayersAbove, Rationales, decision, joined
from microtome.disentangle.readings import read_tree
from microtome.disentangle.rivals import rivals
from microtome.disentangle.rules import Evidence
from microtome.disentangle.tree_metrics import (
    HeldOut,
    alike,
    contributions,
    fitness,
    judged,
    network_itself,
    path_kept,
)
from microtome.errors import InputError

# ---- a literal version, slow


def literal_projected(x, g, y):
    """Equation 5 by its words: centred problem, projected gradient from alpha = 1."""
    direction = g.sum(0) / np.linalg.norm(g.sum(0))
    if len(x) == 1:
        return direction, y[0] - direction @ x[0]
    z = x * direction
    zc, yc = z - z.mean(0), y - y.mean()
    v = np.ones(x.shape[1])
    for _ in range(10):
        v = zc.T @ (zc @ v)
        v = v / np.linalg.norm(v)
    steepest = 2 / len(x) * ((zc @ v) ** 2).sum() * 1.1
    alpha = np.ones(x.shape[1])
    for _ in range(50):
        slope = np.zeros(x.shape[1])
        for row, wanted in zip(zc, yc, strict=True):
            slope += 2 / len(x) * (row @ alpha - wanted) * row
        alpha = np.minimum(np.maximum(alpha - (slope + PENALTY * np.sqrt(len(x))) / steepest, 0), 1)
    w = direction * (alpha >= 0.5)
    return w, (y - x @ w).mean()


def literal_log_evidence(nodes, data, positives, gamma):
    """sum over positives of log P, everything from scratch."""
    yh = []
    for g, x in zip(data.g, data.x, strict=True):
        cosines = [round(float(g @ w / np.linalg.norm(w)), 9) for w, _, _ in nodes]
        w, b, _ = nodes[int(np.argmax(cosines))]
        yh.append(w @ x + b)
    yh = np.array(yh)
    return (gamma * yh[:positives] - np.log(np.exp(gamma * yh).sum())).sum()


def literal_tree(examples):
    """Greedy merging by recomputing everything: O(N^2) evidences a merge."""
    own, data = examples.positives, examples.every
    count, gamma = len(own.y), 1 / own.y.mean()
    nodes = [(*literal_projected(own.x[[i]], own.g[[i]], own.y[[i]]), [i]) for i in range(count)]
    log = []
    while len(nodes) > 1:
        before = literal_log_evidence(nodes, data, count, gamma)
        best = None
        for a, b in itertools.combinations(range(len(nodes)), 2):
            images = sorted(nodes[a][2] + nodes[b][2])
            union = (*literal_projected(own.x[images], own.g[images], own.y[images]), images)
            after = [union if i == a else node for i, node in enumerate(nodes) if i != b]
            gain = literal_log_evidence(after, data, count, gamma) - before + BETA
            if gain > 0 and (best is None or gain / len(images) > best[0]):
                best = gain / len(images), gain, after, images
        if best is None:
            break
        nodes = best[2]
        log.append((best[3], best[1]))
    return log


def drawn(count, filters, seed, *, shift=0.0, modes=3):
    """Positives of several modes."""
    rng = np.random.default_rng(seed)
    which = np.arange(count) % modes
    base = np.zeros((modes, filters))
    for mode in range(modes):
        base[mode, mode * (filters // modes) : (mode + 1) * (filters // modes)] = 1
    g = base[which] + 0.15 * rng.normal(size=(count, filters))
    norm = np.linalg.norm(g, axis=1)
    g /= norm[:, None]
    x = rng.gamma(2, 1, size=(count, filters)) * (0.3 + base[which]) * (1 - shift)
    b = rng.normal(scale=0.05, size=count) - 3 * shift
    return Rationales(x, g, (g * x).sum(1) + b, b, norm), which


def planted(count, filters, seed, *, modes=3):
    """A network with several ways to decide: what fires for one mode speaks against the negatives of another."""
    positives, which = drawn(count, filters, seed, modes=modes)
    negatives, _ = drawn(count, filters, seed + 1, modes=modes)
    wrong = np.roll(negatives.x, filters // modes, axis=1)  # the filters of another mode fire
    return RationaleExamples(
        positives, Rationales(wrong, negatives.g, (negatives.g * wrong).sum(1), negatives.b, negatives.norm)
    ), which


# ---- rationales


def tails():
    torch.manual_seed(0)
    models = torchvision.models
    return {
        "alexnet": (models.alexnet(weights=None), "features.11"),
        "vgg16": (models.vgg16(weights=None), "features.29"),
        "squeezenet1_0": (models.squeezenet1_0(weights=None), "features.12"),
        "resnet18": (models.resnet18(weights=None), "layer3"),
    }


def bias_part(network, pictures, tail):
    """What the biases above the layer add: by Euler's theorem sum of dy/db b, batch norm written as scale and shift."""
    consts = []

    def shift(module, inputs, output):
        scale = module.weight / (module.running_var + module.eps).sqrt()
        const = (module.bias - module.running_mean * scale).detach().clone().requires_grad_()
        consts.append(const)
        return inputs[0] * scale[:, None, None] + const[:, None, None]

    handles = [m.register_forward_hook(shift) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    biases = [m.bias for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m.bias is not None]
    try:
        _, y = tail._split(pictures)
        wanted = [*biases, *consts]
        grads = torch.autograd.grad(y.sum(), wanted, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return sum(float((g * value.detach()).sum()) for g, value in zip(grads, wanted, strict=True) if g is not None)


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "squeezenet1_0", "resnet18"])
def test_decision_is_linear_in_the_maps_with_the_biases_as_constant(name):
    network, layer = tails()[name]
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.05)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    picture = torch.randn(1, 3, 96, 96)
    tail = LayersAbove(network, layer, 3)
    found = tail.rationales(picture)
    constant = float(found.y[0] - found.product[0].sum())
    expected = bias_part(network, picture, tail)
    assert abs(constant - expected) <= 1e-4 * max(abs(float(found.y[0])), abs(expected))
    assert tail.check(picture) <= 1e-4


@pytest.mark.parametrize("activation", [nn.GELU(), nn.Sigmoid(), nn.SiLU(), nn.Tanh()])
def test_curved_tails_are_refused_by_name(activation):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        activation,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    with pytest.raises(InputError, match=f"piecewise linear.*{type(activation).__name__} 3"):
        LayersAbove(network, "1", 0).check(torch.randn(2, 3, 9, 9))


def test_a_layer_that_does_not_lead_to_the_output_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(27, 2))
    with pytest.raises(InputError, match="must answer once"):
        LayersAbove(network, "0", 0).rationales(torch.randn(2, 3, 3, 3))


def test_decision_of_several_classes_is_the_margin():
    logits = torch.tensor([[1.0, 4.0, 2.0], [3.0, 1.0, 0.5]])
    assert decision(logits, 0).tolist() == [-3.0, 2.0]
    assert decision(logits[:, :1], 0).tolist() == [1.0, 3.0]


def toy_raw():
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)
    ).eval()
    pictures = torch.randn(5, 3, 10, 10)
    return network, pictures, LayersAbove(network, "1", 0)


def test_weighted_positions_keep_the_decision_exact_and_uniform_ones_follow_the_paper():
    _, pictures, tail = toy_raw()
    raw = joined([tail.rationales(pictures[:2]), tail.rationales(pictures[2:])])
    data, kept = FilterScale.of(raw).apply(raw)
    assert kept.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(np.linalg.norm(data.g, axis=1), 1)
    np.testing.assert_allclose((data.g * data.x).sum(1) * data.norm, raw.product.sum(1), rtol=1e-9)
    plain, _ = FilterScale.of(raw, "uniform").apply(raw)
    size = raw.x.mean(0) / raw.cells
    literal = raw.g * size / raw.cells
    np.testing.assert_allclose(plain.g * plain.norm[:, None], literal)
    np.testing.assert_allclose(plain.x, raw.x / size)
    np.testing.assert_allclose(plain.b, raw.y / plain.norm - (plain.g * plain.x).sum(1))
    with pytest.raises(ValueError, match="positions must be one of"):
        FilterScale.of(raw, "random")


def test_filters_set_to_zero_are_the_networks_own_answer():
    network, pictures, tail = toy_raw()
    groups = np.zeros((2, 6), bool)
    groups[0, [1, 3]] = groups[1, 5] = True
    found = tail.without(pictures, groups)
    with torch.no_grad():
        maps = network[:2](pictures)
        for place, group in enumerate(groups):
            changed = maps.clone()
            changed[:, torch.from_numpy(group)] = 0
            np.testing.assert_allclose(found[:, place], decision(network[2:](changed), 0).numpy(), rtol=1e-5, atol=1e-6)


def test_silent_filters_are_dropped_and_images_without_gradient_left_out():
    _, pictures, tail = toy_raw()
    raw = tail.rationales(pictures)
    raw.x[:, 2] = 0
    raw.g[3] = raw.product[3] = 0
    scale = FilterScale.of(raw)
    data, kept = scale.apply(raw)
    assert scale.filters.tolist() == [0, 1, 3, 4, 5]
    assert kept.tolist() == [0, 1, 2, 4]
    assert data.x.shape == (4, 5)


def test_the_network_is_left_as_found():
    network, pictures, tail = toy_raw()
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tail.rationales(pictures)
    tail.check(pictures)
    tail.without(pictures, np.ones((1, 6), bool))
    assert network.training
    assert all(not module._forward_hooks for module in network.modules())
    assert all(value.requires_grad and value.grad is None for value in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# ---- nodes


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_node_fit_equals_the_literal_one(count):
    data, _ = drawn(count, 12, 3)
    found = fit_node(data.x, data.g, data.y)
    w, b = literal_projected(data.x, data.g, data.y)
    np.testing.assert_allclose(found.w, w, atol=1e-12)
    assert found.b == pytest.approx(b, abs=1e-12)


def test_direction_maximises_the_summed_cosine():
    data, _ = drawn(6, 9, 0)
    fit = fit_node(data.x, data.g, np.zeros(6) + data.y)
    direction = data.g.sum(0) / np.linalg.norm(data.g.sum(0))
    np.testing.assert_allclose(fit.w[fit.kept], direction[fit.kept])
    best = (data.g @ direction).sum()
    for other in np.random.default_rng(0).normal(size=(200, 9)):
        assert (data.g @ other).sum() / np.linalg.norm(other) <= best + 1e-12


def test_lasso_keeps_fewer_filters_than_images():
    data, _ = drawn(4, 60, 0, modes=1)
    assert fit_node(data.x, data.g, data.y, "lasso").kept.sum() <= 4
    assert fit_node(data.x, data.g, data.y).kept.sum() > 40
    with pytest.raises(ValueError, match="selection must be one of"):
        fit_node(data.x, data.g, data.y, "ridge")


def test_batched_fits_agree_with_single_ones():
    data, _ = drawn(12, 30, 5)
    x, g, y = (torch.from_numpy(value.astype(np.float32)) for value in (data.x, data.g, data.y))
    pairs = torch.tensor([[0, 1], [2, 7], [3, 6]])
    found = fit_leaf_pairs(x, g, y, pairs)
    for place, pair in enumerate(pairs.tolist()):
        single = fit_node(data.x[pair], data.g[pair], data.y[pair])
        np.testing.assert_allclose(found.direction[place] * found.length[place], single.w, atol=2e-5)
    own, others = [0, 3, 6], [[1, 4], [2], [5, 7, 8]]
    flat = [image for other in others for image in other]
    node = torch.tensor([0, 0, 1, 2, 2, 2])
    found = fit_unions(
        Members(x[own], g[own], y[own], torch.zeros(3, dtype=torch.long), 1),
        Members(x[flat], g[flat], y[flat], node, 3),
    )
    for place, other in enumerate(others):
        images = sorted(own + other)
        single = fit_node(data.x[images], data.g[images], data.y[images])
        np.testing.assert_allclose(found.direction[place] * found.length[place], single.w, atol=2e-5)
        assert float(found.b[place]) == pytest.approx(single.b, abs=1e-4)


# ---- the tree


@pytest.mark.parametrize("seed", range(4))
def test_merges_are_the_literal_ones(seed, monkeypatch):
    monkeypatch.setattr(decision_tree, "PAIR_BLOCK", 7)  # several blocks
    monkeypatch.setattr(decision_tree, "BLOCK", 40)
    examples = RationaleExamples(drawn(9, 12, seed)[0], drawn(8, 12, seed + 50, shift=0.5)[0])
    tree, expected = grow(examples), literal_tree(examples)
    assert [tree.members[merge.node].tolist() for merge in tree.merges] == [images for images, _ in expected]
    np.testing.assert_allclose([merge.gain for merge in tree.merges], [gain for _, gain in expected], atol=1e-9)
    assert all(merge.gain > 0 for merge in tree.merges)


def test_a_bit_per_filter_gives_the_same_tree_as_kept_directions(monkeypatch):
    examples = RationaleExamples(drawn(20, 24, 1)[0], drawn(20, 24, 2, shift=0.5)[0])
    cached = grow(examples)
    monkeypatch.setattr(decision_tree, "CACHE_BYTES", 0)
    again = grow(examples)
    assert [(m.left, m.right) for m in again.merges] == [(m.left, m.right) for m in cached.merges]
    np.testing.assert_array_equal(again.w, cached.w)


@pytest.mark.parametrize("count", [45, 90])
def test_planted_modes_are_recovered(count):
    """Three second-layer nodes take all images, one mode each. Merging what nobody visits costs nothing and gains
    beta: what the three do not need ends in one node without visitors."""
    examples, which = planted(count, 60, 0)
    tree = grow(examples)
    top = np.array([path[0] for path in tree.paths(examples.positives.g)])
    assert sorted({tuple(sorted(set(which[top == node]))) for node in set(top)}) == [(0,), (1,), (2,)]
    assert len(set(top)) == 3
    for node in set(top):
        assert set(which[tree.members[node]]) == set(which[top == node])
    assert len(tree.second_layer) <= 4


def test_with_positives_only_in_the_denominator_everything_collapses():
    """Why the denominator runs over negatives, too."""
    examples, _ = planted(45, 60, 0)
    far = examples.negatives
    weightless = Rationales(far.x * 0 - 1e4, far.g, far.y, far.b, far.norm)  # exp(gamma yh) = 0 at any node
    assert len(grow(RationaleExamples(examples.positives, weightless)).second_layer) == 1


def test_replaying_the_log_gives_the_same_tree():
    examples = RationaleExamples(drawn(15, 20, 2)[0], drawn(15, 20, 3, shift=0.5)[0])
    tree = grow(examples)
    again = replay(examples, tree.merges)
    for name in ("w", "b", "kept", "parent", "children"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tree, name))
    assert grow(examples).merges == tree.merges


def test_leaves_explain_their_own_images_exactly():
    positives, _ = drawn(12, 15, 4)
    tree = grow(RationaleExamples(positives, drawn(12, 15, 5, shift=0.5)[0]))
    rho = tree.contributions(positives, np.arange(12))
    assert fitness(rho, contributions(positives)).tolist() == [1.0] * 12
    np.testing.assert_allclose(tree.estimate(positives, np.arange(12)), positives.y * positives.norm)


def test_paths_follow_the_larger_cosine_from_the_second_layer_to_a_leaf():
    positives, _ = drawn(14, 18, 6)
    tree = grow(RationaleExamples(positives, drawn(14, 18, 7, shift=0.5)[0]))
    depth = tree.depth()
    unseen, _ = drawn(9, 18, 8)
    for g, path in zip(unseen.g, tree.paths(unseen.g), strict=True):
        level = tree.second_layer
        for step, node in enumerate(path):
            cosines = [g @ tree.w[other] / np.linalg.norm(tree.w[other]) for other in level]
            assert node == level[int(np.argmax(np.round(cosines, 9)))]
            assert depth[node] == step + 2
            level = sorted(tree.children[node])
        assert tree.children[path[-1], 0] == -1


def test_metrics_by_hand():
    positives, _ = drawn(6, 9, 0)
    tree = replay(RationaleExamples(positives, positives), [])
    groups = np.zeros((1, 9), bool)
    groups[0, :3] = True
    y = positives.y * positives.norm
    removed = y[:, None] - (contributions(positives)[:, :3].sum(1) + 0.5 * y.mean())[:, None]
    found = {
        metric.name: metric.values
        for metric in judged(read_tree(tree, positives), HeldOut(positives, np.ones(6, bool), removed, groups), [])
    }
    assert found["accuracy"].mean() == (y > 0).mean()
    assert found["fidelity"].mean() == 1
    assert found["error"].max() < 1e-12
    assert found["merged"].max() == 0
    np.testing.assert_allclose(found["part error"], 0.5)


def test_rationales_that_are_alike_by_hand():
    one = np.array([[1.0, 0.0], [0.0, 1.0]])
    data = Rationales(np.ones((2, 2)), one, np.ones(2), np.zeros(2), np.ones(2))
    np.testing.assert_allclose(alike(data), [0.5**0.5] * 2)
    np.testing.assert_allclose(alike(replace(data, g=one[[0, 0]])), [1, 1])


def test_fitness_by_hand():
    own = np.array([[2.0, -1.0, 0.0]])
    assert fitness(np.array([[1.0, -1.0, 5.0]]), own)[0] == pytest.approx(2 / 3)
    assert fitness(np.array([[1.0, 1.0, 0.0]]), own)[0] == pytest.approx(1 / 3)
    assert fitness(np.zeros((1, 3)), np.zeros((1, 3)))[0] == 1


def test_a_category_that_the_network_does_not_see_is_refused():
    positives, _ = drawn(6, 9, 0)
    blind = Rationales(positives.x, positives.g, -positives.y, positives.b, positives.norm)
    with pytest.raises(InputError, match="must be positive on average"):
        grow(RationaleExamples(blind, positives))
    with pytest.raises(InputError, match="two positives and a negative"):
        grow(RationaleExamples(positives.of(np.array([0])), positives))


def test_a_path_is_kept_as_far_as_it_goes_along_from_the_top():
    assert path_kept([7, 3, 1], [7, 3, 1]) == 1
    assert path_kept([7, 3, 1], [7, 3]) == pytest.approx(2 / 3)
    assert path_kept([7, 3, 1], [7, 2, 1, 0]) == 1 / 4
    assert path_kept([7, 3], [6, 3]) == 0


def test_filters_vote_for_the_landmark_that_is_nearest_to_their_peak():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    peak = np.array([[0, 1, -1], [0, 3, -1], [3, 1, -1], [2, 1, -1]], np.int32)
    marks = [{"eye": (1.0, 1.0), "tail": (9.0, 1.0)}, {"eye": (0.0, 2.0)}, {"tail": (10.0, 9.0)}, {}]
    got = parts_by_landmark(peak, centres, marks)
    assert got.names == ["eye", "tail", "no part"]
    assert got.of.tolist() == [0, 1, 2]
    assert got.share == pytest.approx([2 / 3, 2 / 3, 0])
    assert got.groups().tolist() == [[True, False, False], [False, True, False], [False, False, True]]


def test_parts_by_concept_and_none():
    got = parts_by_concept(["sky", None, "eye", "sky"], np.array([0.2, 0.0, 0.1, 0.3]))
    assert [got.names[number] for number in got.of] == ["sky", "no part", "eye", "sky"]
    assert got.groups().sum(1).tolist() == [1, 1, 2]
    assert no_parts(4).groups().shape == (0, 4)


def toy_parses(parts=("head", None, "wing")):
    """Two pictures, three filters of which the second is silent, a tree of two leaves under one node."""
    data = Rationales(
        np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[0.6, 0.8], [0.8, -0.6]]),
        np.array([1.5, -2.0]), np.zeros(2), np.array([2.0, 0.5]),
    )  # fmt: skip
    w = np.array([[0.6, 0.8], [1.0, 0.0], [0.5, 0.25]])
    tree = decision_tree.Tree(
        w, np.array([0.1, 0.2, 0.3]), w != 0, np.array([2, 2, -1]), np.array([[-1, -1], [-1, -1], [0, 1]]),
        [np.array([0]), np.array([1]), np.array([0, 1])], [Merge(0, 0, 1, 2, 1.0)],
    )  # fmt: skip
    return ParsedPictures(read_tree(tree, data), np.array([0, 2]), list(parts))


def test_a_parse_path_by_hand():
    toy = toy_parses()
    assert toy.paths == [[2, 0], [2, 1]]
    assert toy.decision(0) == 3.0
    first, last = toy.steps(0)
    assert (first.node, last.node) == (2, 0)
    assert first.cosine == pytest.approx((0.6 * 0.5 + 0.8 * 0.25) / np.hypot(0.5, 0.25), abs=1e-9)
    assert first.estimate == pytest.approx((2 * 0.5 + 1 * 0.25 + 0.3) * 2)
    assert last.estimate == pytest.approx((2 * 0.6 + 1 * 0.8 + 0.1) * 2)


def test_shares_of_filters_and_parts_by_hand():
    toy = toy_parses()
    assert toy.filter_shares(1, 2) == [
        FilterShare(2, "wing", 0.25 * 3 * 0.5, pytest.approx(-0.6 * 3 * 0.5)),
        FilterShare(0, "head", 0.5 * 1 * 0.5, pytest.approx(0.8 * 1 * 0.5)),
    ]
    same = toy_parses(parts=("head", "none of them", "head"))
    (head,) = same.part_shares(1, 2)
    assert (head.name, head.here) == ("head", 0.25 * 3 * 0.5 + 0.25)
    assert head.own == pytest.approx(-0.9 + 0.4)
    assert {share.name for share in toy_parses(parts=("head", None, None)).part_shares(1, 2)} == {"head", "no part"}
    assert toy_parses(parts=(None, None, None)).part_shares(1, 2) == []


def test_the_nearest_pictures_of_a_node():
    toy = toy_parses()
    assert toy.nearest(2, np.array([True, True])) == [0, 1]
    assert toy.nearest(2, np.array([False, True])) == [1]
    assert toy.nearest(0, np.array([True, True])) == [0]
    assert toy.nearest(0, np.array([False, True])) == []


def test_a_tree_is_judged_beside_the_network_and_its_imitators():
    rng = np.random.default_rng(5)

    def drawn(count, sign):
        g = rng.normal(size=(count, 6))
        g[:, 0] = 3
        g /= np.linalg.norm(g, axis=1, keepdims=True)
        x = rng.gamma(2, 1, size=(count, 6)) + (sign > 0)
        y = (g * x).sum(1) + (4 if sign > 0 else -9)
        return Rationales(x, g, y, y - (g * x).sum(1), np.ones(count))

    examples = RationaleExamples(drawn(12, 1), drawn(12, -1))
    positives, others = drawn(9, 1), drawn(7, -1)
    both = RationaleExamples(positives, others).every
    truth = np.arange(16) < 8  # one positive is named wrongly
    held = HeldOut(both, truth, np.zeros((16, 0)), np.zeros((0, 6), bool))
    sums = [Evidence(d.x, d.g, d.y, d.g * d.x) for d in (examples.every, both)]
    others = [network_itself(held), *rivals(*sums, 0)]
    every = judged(read_tree(grow(examples), both), held, others)
    found = {(m.model, m.name, m.depth): m.values for m in every if m.against is None}
    compared = {"always yes", "ridge", "scikit-learn tree", "logistic regression"}
    assert {model for model, _, _ in found} == {"tree", "network", *compared}
    assert {m.against for m in every} == {None, *compared}
    assert found["network", "fidelity", None].mean() == 1
    assert found["network", "accuracy", None].tolist() == ((both.y > 0) == truth).astype(float).tolist()
    assert ("tree", "part error", 2) not in found
    assert len(found["tree", "fitness gained down the path", None]) == 8


def test_some_of_many_are_drawn_without_replacement_in_order():
    some = sampled(100, 30, 4)
    assert some == sorted(set(some))
    assert len(some) == 30
    assert some == sampled(100, 30, 4) != sampled(100, 30, 5)
    assert sampled(7, 30, 4) == list(range(7))
    assert sampled(0, 3, 4) == []
