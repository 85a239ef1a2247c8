"""The tree that is fitted to its visitors: literal rules, planted ways, routes that agree with membership, nulls."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from microtome.disentangle.deletion import DRAWS, NAMED, groups_of, moved
from microtome.disentangle.fitted_tree import fit_tree, imitators
from microtome.disentangle.rationales import FilterScale, RawRationales
from microtome.disentangle.readings import read_visited
from microtome.disentangle.rivals import calibrated, ridge
from microtome.disentangle.routes import Routes, children_of
from microtome.disentangle.rule_features import FeatureChoice
from microtome.disentangle.rules import Evidence, Rule, first_rule, fit_rule, left_out, misfit, typical_of
from microtome.disentangle.tree_metrics import Answers, HeldOut, TreeMetric, auc, contrasts, figures
from microtome.disentangle.visited_tree import WORTH, best_ways, fewest_of, gathered, grow_visited

WAYS = 3


def planted(count, seed, *, filters=30, noise=0.1):
    """Three ways to decide, ten filters each: a picture's own way alone counts; half of the pictures say no."""
    rng = np.random.default_rng(seed)
    which = np.arange(count) % WAYS
    g = np.repeat(np.eye(WAYS), filters // WAYS, axis=1)[which] + noise * rng.normal(size=(count, filters))
    x = rng.gamma(2, 1, size=(count, filters))
    b = -(g * x).sum(1).mean() + rng.normal(scale=0.1, size=count)
    y = (g * x).sum(1) + b
    return Evidence(x, g, y, g * x), g / np.linalg.norm(g, axis=1, keepdims=True), which


# ---- one rule


def literal_rule(some, above, worth, typical):
    """The module's objective by its normal equations, picture by picture and feature by feature."""
    features = some.x.shape[1]
    left, right = np.zeros((features + 1, features + 1)), np.zeros(features + 1)
    for x, g, y in zip(some.x, some.g, some.y, strict=True):
        row = np.append(x, 1.0)
        left += np.outer(row, row)
        right += y * row
        for d in range(features):
            left[d, d] += x[d] ** 2
            right[d] += x[d] * g[d] * x[d]
    for d in range(features):
        left[d, d] += worth * typical[d]
        right[d] += worth * typical[d] * above.w[d]
    left[-1, -1] += worth
    right[-1] += worth * above.b
    found = np.linalg.solve(left, right)
    return found[:-1], found[-1]


@pytest.mark.parametrize(("count", "worth"), [(1, 1.0), (4, 30.0), (40, 0.5)])
def test_a_rule_is_the_literal_minimum(count, worth):
    some, _, _ = planted(count, 3, filters=9)
    above = Rule(np.linspace(-1, 1, 9), 0.7)
    typical = typical_of(some)
    found = fit_rule(some, above, worth, typical)
    w, b = literal_rule(some, above, worth, typical)
    np.testing.assert_allclose(found.w, w, atol=1e-9)
    assert found.b == pytest.approx(b, abs=1e-9)


def test_a_rule_by_hand():
    """(2w + b - 5)^2 + (2w - 2)^2 + 8 w^2 + b^2 is least where 16 w + 2 b = 14 and 2 w + 2 b = 5."""
    some = Evidence(np.array([[2.0]]), np.array([[1.0]]), np.array([5.0]), np.array([[2.0]]))
    assert typical_of(some).tolist() == [8.0]
    found = fit_rule(some, Rule(np.zeros(1), 0.0), 1.0, typical_of(some))
    assert found.w[0] == pytest.approx(9 / 14)
    assert found.b == pytest.approx(5 / 2 - 9 / 14)


def test_a_rule_worth_much_is_the_one_above_and_one_worth_nothing_forgets_it():
    some, _, _ = planted(60, 0)
    above = Rule(np.full(30, 9.0), -4.0)
    kept = fit_rule(some, above, 1e9, typical_of(some))
    np.testing.assert_allclose(kept.w, above.w, atol=1e-4)
    assert kept.b == pytest.approx(-4.0, abs=1e-4)
    free = [fit_rule(some, Rule(np.full(30, w), b), 1e-9, typical_of(some)) for w, b in ((9.0, -4.0), (0.0, 0.0))]
    np.testing.assert_allclose(free[0].w, free[1].w, atol=1e-6)


def test_a_linear_network_is_found_exactly():
    """Where every picture has the same rationale the first rule is the network, and nothing is left to tell."""
    rng = np.random.default_rng(2)
    x, w = rng.gamma(2, 1, size=(25, 6)), rng.normal(size=6)
    some = Evidence(x, np.tile(w, (25, 1)), x @ w + 0.5, x * w)
    rule = first_rule(some, typical_of(some))
    np.testing.assert_allclose(rule.w, w, atol=1e-10)
    assert rule.b == pytest.approx(0.5)
    assert left_out(some, 0) < 1e-15
    assert misfit((rule.estimate(some), rule.contributions(some)), some, some).max() < 1e-15


def test_cells_are_summed_by_filter():
    some = Evidence(np.arange(8.0).reshape(1, 8), np.ones((1, 8)), np.zeros(1), np.zeros((1, 2)))
    assert Rule(np.ones(8), 0.0).contributions(some).tolist() == [[6.0, 22.0]]


# ---- gathering and routing


def literal_order(g):
    """Pairs by trying all of them with fresh sums."""
    nodes, pairs = {n: [n] for n in range(len(g))}, []
    while len(nodes) > 1:
        best = None
        for a in nodes:
            for b in nodes:
                if a < b:
                    sums = [np.linalg.norm(g[nodes[a]].sum(0)), np.linalg.norm(g[nodes[b]].sum(0))]
                    lost = sum(sums) - np.linalg.norm(g[nodes[a] + nodes[b]].sum(0))
                    if best is None or lost < best[0] - 1e-9:
                        best = lost, a, b
        nodes[len(g) + len(pairs)] = nodes.pop(best[1]) + nodes.pop(best[2])
        pairs.append({best[1], best[2]})
    return pairs


def test_pictures_are_gathered_where_summed_cosines_lose_least():
    _, g, _ = planted(14, 1, noise=0.4)
    assert [set(pair) for pair in gathered(g).pairs] == literal_order(g)


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_membership_is_routing_and_no_node_is_left_to_few(noise):
    some, g, _ = planted(120, 5, noise=noise)
    tree = grow_visited(g, some, 4)
    paths = tree.routes.paths(g)
    for node, visitors in enumerate(tree.visitors):
        assert visitors.tolist() == [picture for picture, path in enumerate(paths) if node in path]
        assert len(visitors) >= fewest_of(120)
    below = children_of(tree.parent)
    assert all(len(children) != 1 for children in below)
    assert all(max(children) < node for node, children in enumerate(below) if children)


def test_planted_ways_are_recovered():
    some, g, which = planted(150, 7)
    assert best_ways(g, some, 0) == WAYS
    tree = grow_visited(g, some, WAYS)
    top = np.array([path[0] for path in tree.routes.paths(g)])
    assert len(tree.routes.top) == WAYS
    for node in tree.routes.top:
        (way,) = set(which[top == node])
        named = np.argsort(-tree.rules[node].w)[:10]
        assert (named // 10 == way).sum() >= 8  # by chance a third


def test_deeper_rules_tell_more_of_planted_pictures_that_they_did_not_see():
    some, g, _ = planted(150, 7)
    unseen, direction, _ = planted(90, 8)
    tree = grow_visited(g, some, WAYS)
    read = read_visited(tree.routes, tree.rules, direction, unseen)
    errors = [np.abs(tree.root.estimate(unseen) - unseen.y).mean()]
    errors += [np.abs(read.estimate[read.at(depth)] - unseen.y).mean() for depth in (2, read.deepest)]
    assert errors[1] < 0.85 * errors[0]
    assert errors[2] < 1.05 * errors[1]


def test_few_pictures_are_one_way():
    some, g, _ = planted(3, 0)
    tree = grow_visited(g, some, 4)
    assert (len(tree.rules), tree.parent.tolist()) == (1, [-1])


def test_the_first_of_equal_children_wins():
    routes = Routes(np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0]]), [[], [], [1, 0]], [2])
    assert routes.paths(np.array([[1.0, 0.0]])) == [[2, 1]]


def test_each_rule_is_held_to_the_one_above():
    some, g, _ = planted(120, 5)
    tree = grow_visited(g, some, 3)
    for node, above in enumerate(tree.parent):
        held = tree.root if above < 0 else tree.rules[above]
        again = fit_rule(some.of(tree.visitors[node]), held, WORTH, typical_of(some))
        np.testing.assert_array_equal(again.w, tree.rules[node].w)


# ---- features


def raws(count, seed, *, spread):
    """Four filters of six cells; the gradient differs from cell to cell by `spread`, the same in all pictures."""
    rng = np.random.default_rng(seed)
    x = rng.gamma(1, 1, size=(count, 4, 6)).astype(np.float32)
    g = np.tile(np.random.default_rng(0).normal(scale=spread, size=(1, 4, 6)) + 1, (count, 1, 1)).astype(np.float32)
    product = (x.astype(float) * g).sum(2)
    raw = RawRationales(x.sum(2).astype(float), g.sum(2).astype(float), product, product.sum(1) - 20, x.argmax(2), 6)
    return raw, (x, g)


def choice_of(count, *, spread):
    raw, cells = raws(count, 1, spread=spread)
    scale = FilterScale.of(raw)
    data, kept = scale.apply(raw)
    return FeatureChoice(raw, scale, kept, cells), data


def test_features_are_chosen_by_what_tells_most():
    choice, _ = choice_of(40, spread=2.0)
    assert choice.best(np.arange(30), 0) == "cells"
    for name in ("cells", "weighted", "uniform"):
        made = choice.evidence(name)
        np.testing.assert_allclose(made.own.sum(1) - 20, made.y, rtol=1e-6)
    exact = choice.evidence("cells")
    np.testing.assert_allclose(exact.by_filter(exact.x * exact.g), exact.own, rtol=1e-5)


def test_cells_that_are_not_kept_are_not_looked_at():
    raw, _ = raws(20, 1, spread=1.0)
    scale = FilterScale.of(raw)
    choice = FeatureChoice(raw, scale, np.arange(20), None)
    assert choice.best(np.arange(20), 0) in ("weighted", "uniform")
    with pytest.raises(ValueError, match="must be weighted or uniform"):
        choice.evidence("cells")


def test_a_fitted_tree_tells_how_many_filters_it_rests_on():
    choice, data = choice_of(40, spread=2.0)
    made = fit_tree(data.g, choice, np.arange(30), features="weighted", seed=0)
    assert 1 <= made.filters_of(-1) <= 4
    unseen = np.arange(30, 40)
    root = made.root(unseen)
    np.testing.assert_allclose(root.score, made.tree.root.estimate(choice.evidence("weighted").of(unseen)))
    found = {said.model: said for said in imitators(made.read, choice, (np.arange(30), unseen), cells=True, seed=0)}
    assert {"tree, calibrated", "always yes", "ridge", "ridge per cell"} <= set(found)


# ---- figures


def test_the_area_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    score, yes = np.round(rng.normal(size=50), 1), rng.random(50) < 0.4
    assert auc(score, yes) == pytest.approx(roc_auc_score(yes, score))
    assert auc(np.zeros(50), yes) == 0.5


def held_of(y, positive):
    some = Evidence(np.ones((len(y), 2)), np.ones((len(y), 2)), y, np.ones((len(y), 2)))
    raw = RawRationales(some.x, some.g, some.own, y, np.zeros((len(y), 2), np.int32), 1)
    data, _ = FilterScale.of(raw).apply(raw)
    return HeldOut(data, positive, np.zeros((len(y), 0)), np.zeros((0, 2), bool))


def test_positives_and_others_are_told_apart():
    held = held_of(np.array([1.0, 2.0, -1.0, -2.0, -3.0]), np.array([True, True, True, False, False]))
    said = Answers("always yes", None, np.ones(5), logits=False)
    found = {metric.name: metric.interval for metric in figures(said, held)}
    assert found["fidelity"][0] == pytest.approx(2 / 5)
    assert found["fidelity on positives"][0] == pytest.approx(2 / 3)
    assert found["fidelity on others"][0] == 0
    assert found["fidelity on others"][2] > 0.5  # Wilson's, of two pictures
    assert found["auc"] == (0.5, 0.5, 0.5)
    right = Answers("tree", 2, held.y)
    (fidelity,) = [m for m in contrasts(right, said, held) if m.name == "fidelity"]
    assert (fidelity.against, fidelity.values.tolist()) == ("always yes", [0, 0, 1, 1, 1])


def test_a_share_and_a_difference_have_intervals_of_their_own():
    assert TreeMetric(2, "fidelity", np.ones(20)).interval[1] < 1
    assert TreeMetric(2, "fidelity", np.zeros(20), against="ridge").interval == (0, 0, 0)


def test_a_threshold_is_fitted_where_most_is_right():
    score, decided = np.array([-5.0, -3.0, -2.0, -1.0]), np.array([False, False, True, True])
    said = calibrated(Answers("tree", 2, np.array([-4.0, -1.5])), score, decided)
    assert said.score.tolist() == [-1.5, 1.0]
    same = calibrated(Answers("tree", 2, np.array([-4.0])), np.array([-1.0, 1.0]), np.array([False, True]))
    assert same.score.tolist() == [-4.0]  # zero is as good as any


def test_a_ridge_of_the_logit_tells_a_linear_one():
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=(80, 5)), np.arange(1.0, 6.0)
    some = Evidence(x, np.tile(w, (80, 1)), x @ w + 2, x * w)
    said = ridge(some.of(np.arange(60)), some.of(np.arange(60, 80)), "ridge")
    np.testing.assert_allclose(said.score, some.y[60:], atol=0.02)
    np.testing.assert_allclose(said.rho, some.own[60:], atol=0.02)


# ---- deletion


def test_named_filters_and_others_as_active():
    rho, activation = np.linspace(-1, 2, 60), np.arange(60.0)
    groups, sign = groups_of(rho, activation, 0)
    assert (groups.shape, sign) == ((1 + DRAWS, 60), 1.0)
    assert np.flatnonzero(groups[0]).tolist() == list(range(52, 60))
    assert groups.sum(1).tolist() == [NAMED] * (1 + DRAWS)
    assert not (groups[1:] & groups[0]).any()
    assert activation[np.flatnonzero(groups[1])].min() > 25  # next to the named ones by activation
    assert groups_of(-rho, activation, 0)[1] == -1.0
    assert groups_of(np.ones(6), np.ones(6), 0)[0].sum(1).tolist() == [3] * (1 + DRAWS)


def test_what_moves_against_the_decision_counts():
    y, without = np.array([3.0, -2.0]), np.array([[1.0, *[3.0] * DRAWS], [-3.0, *[-1.0] * DRAWS]])
    assert [part.tolist() for part in moved(y, without, 1.0)] == [[2.0, 1.0], [0.0, -1.0]]
    assert moved(y, without, -1.0)[0].tolist() == [-2.0, -1.0]


def test_shuffled_decisions_cannot_be_told():
    """Rationales and decisions of other pictures: what the tree says of unseen ones ranks nothing."""
    areas = []
    for seed in range(6):
        some, g, _ = planted(120, seed)
        unseen, direction, _ = planted(90, seed + 50)
        order = np.random.default_rng(seed).permutation(120)
        noise = np.random.default_rng(seed + 9).normal(size=some.g.shape)
        wrong = Evidence(some.x, noise, some.y[order], some.x * noise)
        grown = grow_visited(g, wrong, 3)
        read = read_visited(grown.routes, grown.rules, direction, unseen)
        areas.append(auc(read.estimate[read.at(2)], unseen.y > 0))
    assert abs(np.mean(areas) - 0.5) < 0.1
