"""Removing units: cut networks answer as whole ones do, formulas are literal, what creatures need is found."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torchvision.models import resnet18

from microtome.datasets.creatures import PLANS, Creatures
from microtome.networks.cut import GraphCut, WholeNetwork, cut_at
from microtome.networks.geometry import walk
from microtome.networks.small import trained_creature_net
from microtome.quantify import ablation as science
from microtome.quantify.decisions import Decisions, SingleUnits
from microtome.quantify.intervals import mean_interval, mean_intervals, ratio_intervals
from microtome.quantify.removal import Removal, said
from microtome.report import ablation as report
from microtome.report.render import typeset
from tests.conftest import CREATURE_NET, change_audit, write_audit
from tests.test_pipeline import run

# a network cut at a layer


class Chain(nn.Sequential):
    """Works in place before and after the layer."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.5),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        )


class Bypass(nn.Module):
    """What lies below the layer reaches the head past it, too, by two ways, and by its shape."""

    def __init__(self):
        super().__init__()
        self.stem, self.layer, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(16 * 36, 4)
        self.scale = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x):
        below = torch.relu(self.stem(x))
        above = self.layer(below)
        above += below * self.scale
        return self.head(torch.cat([above.relu_(), below], 1).reshape(x.size(0), -1))


class Residual(nn.Module):
    """The sum is written into what came past the layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.layer, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        past = self.stem(x)
        past += self.layer(past)
        return self.head(past.mean((2, 3)))


class Deciding(nn.Module):
    """Which way it goes depends on the values."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        maps = self.layer(x).mean((2, 3))
        return self.head(maps if maps.sum() > 0 else -maps)


class Overwriting(nn.Module):
    """Reads, beside the layer, what is overwritten afterwards without it: the graph does not know the order."""

    def __init__(self):
        super().__init__()
        self.stem, self.layer, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        below = self.stem(x)
        summed = self.layer(below) + below
        below.mul_(2)
        return self.head((summed + below).mean((2, 3)))


class Twice(nn.Module):
    """Asks the layer twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, 4)

    def forward(self, x):
        return self.head(self.layer(self.layer(x)).mean((2, 3)))


def made(kind) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("kind", "layer", "side"),
    [
        (Chain, "2", 8),
        (Chain, "3", 8),
        (Chain, "0", 8),
        (Bypass, "layer", 8),
        (Bypass, "stem", 8),
        (Residual, "layer", 8),
        (lambda: resnet18(weights=None), "layer3.0.conv1", 64),
        (lambda: resnet18(weights=None), "maxpool", 64),
    ],
)
def test_a_cut_network_answers_to_the_bit_as_the_whole_one_with_a_hook(kind, layer, side):
    network, pictures = made(kind), torch.randn(5, 3, side, side)
    cut, whole = cut_at(network, layer, pictures[:2]), WholeNetwork(network, layer)
    assert isinstance(cut, GraphCut)
    with torch.inference_mode():
        below, other = cut.below(pictures), whole.below(pictures)
        assert torch.equal(below.output, other.output)
        for seed in range(4):
            torch.manual_seed(seed)
            given = below.output * (torch.rand_like(below.output) < seed / 3)
            assert torch.equal(cut.above(below, given.clone()), whole.above(other, given.clone()))
        assert torch.equal(cut.above(below, below.output.clone()), network(pictures))
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(("kind", "layer", "side"), [(Chain, "2", 8), (Bypass, "layer", 8)])
def test_what_lies_below_runs_once(kind, layer, side):
    network, pictures = made(kind), torch.randn(3, 3, side, side)
    cut, calls = cut_at(network, layer, pictures), []
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    handle = first.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        below = cut.below(pictures)
        for _ in range(3):
            cut.above(below, below.output.clone())
    handle.remove()
    assert len(calls) == 1


def test_where_few_units_differ_only_they_are_convolved():
    """To 1e-6 of what the whole output gives, and to the bit where none differs."""
    network, pictures = made(Chain), torch.randn(5, 3, 8, 8)
    cut, whole = cut_at(network, "1", pictures[:2]), WholeNetwork(network, "1")
    read = []
    handle = network[2].register_forward_hook(lambda *_: read.append(1))
    with torch.inference_mode():
        below, other = cut.below(pictures), whole.below(pictures)
        start = cut.start(below, below.output)
        assert torch.equal(start.read, network[2](below.output))
        read.clear()
        for units in ([0], [3, 5]):
            numbers = torch.tensor(units)
            values = torch.randn(5, len(units), 8, 8)
            wanted = whole.above(other, below.output.index_copy(1, numbers, values))
            read.clear()
            found = cut.differing(start, 1, numbers, values)
            assert not read
            assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()
        for units in ([], [0, 1, 2, 6]):  # none, or too many: the whole output is read
            numbers, values = torch.tensor(units, dtype=torch.long), torch.randn(5, len(units), 8, 8)
            wanted = whole.above(other, below.output.index_copy(1, numbers, values))
            assert torch.equal(cut.differing(start, 1, numbers, values), wanted)
        same = cut.differing(start, 1, torch.tensor([4]), below.output[:, [4]])
        assert torch.equal(same, network(pictures))
    handle.remove()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Deciding, "it cannot be traced (TraceError)"),
        (Overwriting, "cut at this layer it answers otherwise"),
        (Twice, "it cannot be traced (ValueError)"),
    ],
)
def test_what_cannot_be_cut_is_run_whole(kind, reason):
    network, pictures = made(kind), torch.randn(3, 3, 8, 8)
    cut = cut_at(network, "layer", pictures)
    assert cut.reason == reason
    with torch.inference_mode():
        below = cut.below(pictures)
        assert not torch.equal(cut.above(below, torch.zeros_like(below.output)), network(pictures))


# scores and removals


def test_log_odds_are_literal():
    answer = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)) * 3
    classes = torch.tensor([0, 1, 2, 3, 4, 0])
    found = said(answer, classes)
    for row, own, score, top in zip(answer.double().numpy(), classes.tolist(), found.score, found.top, strict=True):
        p = np.exp(row[own]) / sum(np.exp(value) for value in row)
        assert score == pytest.approx(np.log(p / (1 - p)), rel=1e-12)
        assert top == max(range(5), key=lambda place: row[place])
    sure = said(torch.tensor([[100.0, 0.0, -50.0]]), torch.tensor([0]))
    assert sure.score[0] == pytest.approx(100.0)  # where the probability is 1 in float64


class Weighing(nn.Module):
    """Two units, the picture's first two channels; the answer is W times their means over the places."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 2, 1, bias=False), nn.Linear(2, 2, bias=False)
        self.layer.weight.data = torch.eye(3)[:2, :, None, None]
        self.head.weight.data = torch.tensor([[1.0, 2.0], [3.0, -1.0]])

    def forward(self, x):
        return self.head(self.layer(x).mean((2, 3)))


def test_removals_by_hand():
    """z = (a + 2 b, 3 a - b); with two classes the log-odds of the first are z_0 - z_1 = -2 a + 3 b."""
    network = Weighing().eval().requires_grad_(False)
    a, b = np.array([1.0, 2.0, 4.0]), np.array([5.0, 3.0, 7.0])
    pictures = torch.zeros(3, 3, 4, 4)
    pictures[:, 0], pictures[:, 1] = (torch.tensor(one).float()[:, None, None] for one in (a, b))
    (layer,) = walk(network, (4, 4), ["layer"])
    groups, mean, steps = np.array([[True, False], [False, True], [True, True]]), np.array([10.0, 20.0]), []
    with torch.inference_mode():
        cut = cut_at(network, "layer", pictures)
        removal = Removal(
            cut, layer, mean, cut.below(pictures), torch.zeros(3, dtype=torch.long), lambda: steps.append(1)
        )

        def odds(a, b):
            return -2 * a + 3 * b + 0 * np.arange(3)

        assert removal.nothing().score.tolist() == odds(a, b).tolist()
        zero = removal.without(groups, "zero")
        assert zero.score.tolist() == [odds(0, b).tolist(), odds(a, 0).tolist(), odds(0, 0).tolist()]
        assert zero.top.tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
        means = removal.without(groups, "mean").score
        assert means.tolist() == [odds(10, b).tolist(), odds(a, 20).tolist(), odds(10, 20).tolist()]
        other = removal.without(groups, "resampled").score
        a_next, b_next = a[[2, 0, 1]], b[[2, 0, 1]]
        assert other.tolist() == [odds(a_next, b).tolist(), odds(a, b_next).tolist(), odds(a_next, b_next).tolist()]
        kept = removal.kept(groups).score
        assert kept.tolist() == [odds(a, 20).tolist(), odds(10, b).tolist(), odds(a, b).tolist()]
    assert len(steps) == 4 * len(groups)


class Tokens(nn.Module):
    """Its layer answers with (pictures, 1 + places, units): a class token, then the picture's places."""

    def __init__(self):
        super().__init__()
        self.stem, self.layer, self.head = nn.Conv2d(3, 6, 2, stride=2), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        return self.head(self.layer(tokens)[:, 0])


def test_a_unit_of_tokens_is_removed_in_all_of_them():
    network, pictures = made(Tokens), torch.randn(4, 3, 8, 8)
    (layer,) = walk(network, (8, 8), ["layer"])
    assert layer.units == 5
    with torch.inference_mode():
        cut = cut_at(network, "layer", pictures)
        classes = torch.zeros(4, dtype=torch.long)
        removal = Removal(cut, layer, np.zeros(5), cut.below(pictures), classes, lambda: None)
        found = removal.without(np.eye(5, dtype=bool), "zero").score
        for unit in range(5):
            own = cut.below(pictures).output.clone()
            own[:, :, unit] = 0
            assert found[unit].tolist() == said(network.head(own[:, 0]), classes).score.tolist()


# sizes, controls, halves, intervals


def test_what_removal_takes_is_a_root_mean_square():
    values = np.random.default_rng(0).gamma(1, 1, (2, 900))
    mean, std = values.mean(1), values.std(1)
    assert science.removed_size(mean, std, "zero") == pytest.approx(np.sqrt((values**2).mean(1)))
    assert science.removed_size(mean, std, "mean") == pytest.approx(np.sqrt(((values - mean[:, None]) ** 2).mean(1)))
    pairs = (values[:, :, None] - values[:, None, :]) ** 2
    assert science.removed_size(mean, std, "resampled") == pytest.approx(np.sqrt(pairs.mean((1, 2))))


def test_controls_are_the_nearest_that_detect_something_else():
    size, concept = np.arange(15.0), np.full(15, -1)
    concept[[4, 5, 6]] = 2
    weights = science.alike(size, concept)
    assert np.flatnonzero(weights[5]).tolist() == [0, 1, 2, 3, 7, 8, 9, 10, 11, 12][:10]
    assert np.flatnonzero(weights[0]).tolist() == list(range(1, 11))
    assert weights.sum(1) == pytest.approx(1.0)
    assert np.diag(weights).tolist() == [0.0] * 15
    assert science.alike(np.ones(3), np.zeros(3, int)).tolist() == np.zeros((3, 3)).tolist()


def test_random_groups_are_as_large_and_hold_nobody_twice():
    rng = np.random.default_rng(3)
    size = rng.gamma(1, 1, 60)
    named = np.array([7, 3, 40, 59])
    groups = science.drawn_alike(named, size, 5, np.random.default_rng(0))
    assert groups.shape == (5, 60)
    assert groups.sum(1).tolist() == [4] * 5
    assert not groups[:, named].any()
    for group in groups:
        rank = np.argsort(np.abs(size - size[named].max()), kind="stable")
        assert set(np.flatnonzero(group)) <= set(range(60)) - set(named)
        assert len(rank) == 60
    near = science.drawn_alike(np.array([0]), np.arange(60.0), 200, np.random.default_rng(0))
    assert set(np.flatnonzero(near.any(0))) == set(range(1, 11))


def test_each_class_is_cut_into_halves():
    classes = np.array([0] * 7 + [1] * 4 + [2])
    first = science.choosing(classes, np.random.default_rng(0))
    assert [int(first[classes == number].sum()) for number in range(3)] == [3, 2, 0]


def test_the_dearest_class_loses_most():
    drop = np.array([[1.0, 1.0, 5.0, 0.0], [0.0, 0.0, -1.0, -3.0]])
    classes = [np.array([True, True, False, False]), np.array([False, False, True, True])]
    assert science.dearest(drop, classes).tolist() == [1, 0]
    assert science.dearest(drop, classes[:1]).tolist() == [0, 0]


def test_p_is_students():
    apart = np.random.default_rng(0).normal(0.3, 1, (6, 17))
    assert science.paired_p(apart) == pytest.approx(stats.ttest_1samp(apart, 0, axis=1).pvalue)
    assert science.paired_p(np.array([[0.0, 0.0], [2.0, 2.0]])).tolist() == [1.0, 0.0]
    assert science.paired_p(np.array([[3.0]])).tolist() == [1.0]


def test_intervals_of_many_rows_are_those_of_each():
    values = np.random.default_rng(0).gamma(0.7, 1, (5, 23))
    values[2] = 4.0
    for row, found in zip(values, mean_intervals(values), strict=True):
        assert found == pytest.approx(mean_interval(row), rel=1e-9)


def test_a_ratio_of_means_by_hand():
    whole = np.array([2.0, 4.0, 6.0, 8.0])
    found = ratio_intervals(np.stack([whole / 2, whole**2]), whole)
    assert found[0] == pytest.approx([0.5, 0.5, 0.5])
    drawn = np.random.default_rng(0).integers(4, size=(1000, 4))
    ratios = (whole**2)[drawn].mean(1) / whole[drawn].mean(1)
    assert found[1, 0] == 6.0  # (4 + 16 + 36 + 64) / (2 + 4 + 6 + 8)
    z = stats.t.ppf([0.025, 0.975], 3) * np.sqrt(4 / 3)
    assert found[1, 1:] == pytest.approx(np.quantile(ratios, stats.norm.cdf(z)))
    assert np.isnan(ratio_intervals(whole[None], -whole)).all()
    mixed = ratio_intervals(whole[None], np.array([-1.0, 0.0, 0.0, 5.0]))
    assert mixed[0, 0] == 5.0
    assert np.isnan(mixed[0, 1:]).all()


def test_an_effect_is_paired():
    rng = np.random.default_rng(0)
    drop, random = rng.normal(2, 1, (3, 30)), rng.normal(0, 1, (3, 30))
    found = science.effect(drop, random)
    assert found.beyond[:, 0] == pytest.approx(found.drop[:, 0] - found.random[:, 0])
    for row in range(3):
        assert found.beyond[row] == pytest.approx(mean_interval(drop[row] - random[row]), rel=1e-9)
    kept, base, score = np.array([[1.0, 3.0]]), np.array([0.0, 0.0]), np.array([4.0, 4.0])
    assert science.regained(kept, base, score)[0, 0] == 0.5


def made_decisions(rng, units=6, pictures=120):
    """Decisions of three classes, drawn at random."""
    shape = (units, pictures)
    score = rng.normal(3, 1, pictures)
    flags = rng.random(shape) < 0.7
    return Decisions(
        name=rng.permutation(np.repeat(["a", "b", "c"], pictures // 3)), labelled=rng.random(pictures) < 0.8,
        hit=rng.random(pictures) < 0.9, score=score, nothing=np.zeros(pictures), base=rng.normal(0, 1, pictures),
        without=score - rng.exponential(1, shape), kept=rng.normal(1, 1, shape), hit_without=flags, flipped=~flags,
    )  # fmt: skip


def test_single_units_are_judged_as_one_by_one():
    """By their own class, in the half of its pictures that did not choose it; the last unit has no control."""
    made, control = made_decisions(np.random.default_rng(2)), np.zeros((6, 6))
    for unit in range(5):
        control[unit, [(unit + 1) % 6, (unit + 2) % 6]] = 0.5
    single = SingleUnits(made, control, np.random.default_rng(3))
    first = science.choosing(np.unique(made.name, return_inverse=True)[1], np.random.default_rng(3))
    drop, own, judges = made.score - made.without, [], []
    for unit in range(6):
        means = {
            name: np.mean([drop[unit, at] for at in np.flatnonzero((made.name == name) & first)]) for name in "abc"
        }
        name = max(means, key=means.get)
        judges.append(np.flatnonzero((made.name == name) & ~first))
        own.append(drop[unit, judges[-1]].mean())
        assert single.chosen[0][unit] == name
    assert single.own_drop == pytest.approx(own)
    beyond = [mean_interval(drop[unit, judges[unit]] - (control @ drop)[unit, judges[unit]]) for unit in range(5)]
    assert single.beyond[:5] == pytest.approx(np.array(beyond))
    assert np.isnan(single.beyond[5]).all()
    assert not single.used[5]
    for group in single.judged:
        for place, unit in enumerate(group.units.tolist()):
            near = np.flatnonzero(control[unit])
            if len(near):
                lower = [drop[other, judges[unit]].mean() < own[unit] for other in near]
                assert group.surpassed[place] == pytest.approx(np.mean(lower))
                assert group.own_random[place] == pytest.approx(np.mean([own[other] for other in near]))
    wanted = np.array([True, False, True, False, False, True])  # of the last, which has no control, nothing is said
    dropped, random, apart = single.apart(wanted)
    assert dropped == pytest.approx(np.array(mean_interval(np.array([own[0], own[2]]))))
    assert random == pytest.approx(np.mean([(control @ drop)[unit, judges[unit]].mean() for unit in (0, 2)]))
    others = [own[unit] - np.mean([own[unit + 1], own[unit + 2]]) for unit in (0, 2)]
    assert apart == pytest.approx(np.array(mean_interval(np.array(others))))
    assert single.apart(np.arange(6) == 5) is None


# through an audit

NETWORK = CREATURE_NET
COUNT = 180


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the audit."""
    return tmp_path_factory.mktemp("ablation")


@pytest.fixture(scope="module")
def done(folder):
    """Creatures, the shipped network."""
    content = {
        "name": "ablation",
        "network": NETWORK,
        "dataset": {"format": "creatures", "count": COUNT, "seed": 3},
        "stages": {
            "dissection": {"bootstrap": 0, "permutations": 0},
            "ablation": {"images": COUNT},
            "report": {"top_images": 1},
        },
        "gates": [{"metric": "ablation_layers.nothing", "max": 0, "layer": "features.12"}],
    }
    return run(write_audit(folder / "audit.yaml", content))


@pytest.fixture(scope="module")
def decided():
    """By hand, in float64: each animal's log-odds whole, and without each unit, (units, pictures).

    What follows the layer is the maximum over its places and a linear layer.
    """
    data, network = Creatures(count=COUNT, seed=3), trained_creature_net()
    pixels = np.stack([np.asarray(data.picture(image), np.float32) / 255 for image in range(COUNT)])
    with torch.no_grad():
        maps = network.features(torch.from_numpy((pixels.transpose(0, 3, 1, 2) - 0.5) / 0.25))
    peak = maps.double().amax((2, 3)).numpy()
    weight, bias = (value.double().numpy() for value in network.classifier.parameters())
    own = np.array([network.classes.index(animal) for animal in data.animals])

    def odds(peak):
        z = peak @ weight.T + bias
        p = np.exp(z - z.max(1, keepdims=True))
        rest = np.where(np.arange(z.shape[1])[None] == own[:, None], 0, p).sum(1)
        return np.log(p[np.arange(COUNT), own]) - np.log(rest)

    without = np.repeat(peak[None], 64, axis=0)
    without[np.arange(64), :, np.arange(64)] = 0
    return np.array(data.animals), odds(peak), np.stack([odds(one) for one in without])


def tables(done, name):
    return done["ablation"][0].table(name).to_pandas()


def test_nothing_removed_changes_nothing(done):
    (layer,) = done["ablation"][0].table("ablation_layers").to_pylist()
    assert layer["nothing"] == 0.0
    assert layer["whole"] is None
    assert (layer["labelled"], layer["classes"], layer["units"]) == (COUNT, 6, 64)
    assert done["gates"][0].table("gates").column("passed").to_pylist() == [True]


def test_drops_are_those_of_the_plain_network(done, decided):
    animals, whole, without = decided
    found = tables(done, "ablation_classes")
    for name in PLANS:
        rows = found[found.class_name == name].sort_values("unit")
        here = animals == name
        drop = (whole - without)[:, here]
        assert rows["drop"].to_numpy() == pytest.approx(drop.mean(1), abs=1e-4)
        assert rows.images.tolist() == [int(here.sum())] * 64
        p = 1 / (1 + np.exp(-whole[here])) - 1 / (1 + np.exp(-without[:, here]))
        assert rows.probability_drop.to_numpy() == pytest.approx(p.mean(1), abs=1e-6)
        unit = int(drop.mean(1).argmax())
        low, high = rows[rows.unit == unit][["drop_low", "drop_high"]].to_numpy()[0]
        assert (low, high) == pytest.approx(mean_interval(drop[unit])[1:], abs=1e-4)
    every = found[found.class_name.isna()].sort_values("unit")
    assert every["drop"].to_numpy() == pytest.approx((whole - without).mean(1), abs=1e-4)


def test_controls_are_the_drops_of_units_of_the_same_size(done, decided):
    _, whole, without = decided
    units, found = tables(done, "ablation_units").sort_values("unit"), tables(done, "ablation_classes")
    every = found[found.class_name.isna()].sort_values("unit")
    labels = done["dissection"][0].table("units").to_pandas().sort_values("unit")
    detects = np.where(labels.detector, labels.concept_id, -1)
    drop, size = (whole - without).mean(1), units["size"].to_numpy()
    for unit in range(64):
        free = [u for u in range(64) if u != unit and (detects[unit] < 0 or detects[u] != detects[unit])]
        near = sorted(free, key=lambda u: (abs(size[u] - size[unit]), u))[:10]
        assert every.random.iloc[unit] == pytest.approx(drop[near].mean(), abs=1e-4)
        assert units.matched.iloc[unit] == 10
    assert units.concept.fillna("").tolist() == labels.concept.where(labels.detector).fillna("").tolist()


def test_the_class_is_chosen_by_other_pictures_than_judge_it(done, decided):
    animals, _, _ = decided
    units = tables(done, "ablation_units")
    for row in units.itertuples():
        here = animals == row.class_name
        assert row.images == here.sum() - here.sum() // 2
    judged = units[units.used]
    assert (judged.q_value <= 0.05).all()
    assert (judged.beyond > 0).all()
    assert (units.beyond - (units["drop"] - units.random)).abs().max() < 1e-9
    assert units.own_random.notna().all()


def test_units_carry_the_animals_that_have_their_part(done):
    """The truth: which animal has which part. A concept's units cost the animals that have it more than as many random
    units of the same sizes do, and the others less than these; of the parts that not every animal has."""
    has = {
        "wing": [name for name, plan in PLANS.items() if plan.wings],
        "tail": [name for name, plan in PLANS.items() if plan.tail != "none"],
        "antler": ["deer"],
        "beak": ["bird"],
        "ear": ["cat", "bear"],
    }
    units, classes = tables(done, "ablation_units"), tables(done, "ablation_classes")
    own, beside = [], []
    for row in units[units.concept.isin(has)].itertuples():
        mine = classes[(classes.unit == row.unit) & classes.class_name.notna()]
        there = mine.class_name.isin(has[row.concept])
        own.append(mine[there]["drop"].mean() - mine[~there]["drop"].mean())
        beside.append(mine[there].random.mean() - mine[~there].random.mean())
    assert len(own) >= 4
    assert np.mean(own) > np.mean(beside) + 2
    antler = units[units.concept == "antler"]
    assert antler.class_name.tolist() == ["deer"] * len(antler)
    assert (antler.drop_low > 5 * antler.random).all()
    assert antler.used.all()


def test_groups_of_a_concept_carry_the_animal_that_it_is(done):
    groups = tables(done, "ablation_groups")
    animals = groups[groups.concept.isin(PLANS) & groups.class_name.notna()]
    assert animals.concept.nunique() >= 3
    for concept, rows in animals.groupby("concept"):
        dearest = rows.loc[rows["drop"].idxmax()]
        assert dearest.class_name == concept
        assert dearest.beyond_low > 0
        assert dearest.q_value <= 0.05
        assert dearest.regained > dearest.regained_random
    assert (groups.units == groups.members.map(len)).all()


def test_labels_join_what_they_cause(done):
    units = done["dissection"][0].table("units").to_pandas().sort_values("unit")
    found = tables(done, "ablation_units").sort_values("unit")
    names = {"class": "class_name", "drop": "drop", "low": "drop_low", "high": "drop_high", "random": "random"}
    for name, column in {**names, "q": "q_value"}.items():
        assert units[f"causal_{name}"].tolist() == found[column].tolist()


def test_pages_say_what_the_tables_say(done):
    row = tables(done, "ablation_units").sort_values("drop").iloc[-1]
    text = f"Without it {row.class_name} loses {row['drop']:.2f} [{row.drop_low:.2f}, {row.drop_high:.2f}]"
    (layer,) = done["ablation"][0].table("ablation_layers").to_pylist()
    page = done["report"][0].read("ablation.html").decode()
    assert f"{layer['bystanders']} of {layer['detectors']} detectors are bystanders" in page
    assert text in done["report"][0].read("layer-000.html").decode()
    unit = done["report"][0].read(f"unit/features.12/{row.unit}.html").decode()
    assert unit.count(typeset(text)) == 2  # beside its label, and beside the other classes
    assert unit.index("Where it is highest") < unit.index("Does the network use it?")


def test_other_values_in_their_place(folder, done):
    file = folder / "audit.yaml"
    zero, found = tables(done, "ablation_units"), {}
    for remove in ("mean", "resampled"):
        made = run(file, f"stages.ablation.remove={remove}", "stages.ablation.images=40", until="ablation")
        found[remove] = tables(made, "ablation_units")
        (layer,) = made["ablation"][0].table("ablation_layers").to_pylist()
        assert (layer["nothing"], layer["images"], layer["classes"]) == (0.0, 40, 0)
        assert found[remove].class_name.isna().all()  # no animal has 20 of 40 pictures
    size = {name: rows["size"].to_numpy() for name, rows in found.items()}
    assert size["resampled"] == pytest.approx(np.sqrt(2) * size["mean"])
    assert (zero["size"].to_numpy() >= size["mean"]).all()
    assert not np.allclose(found["mean"]["drop"], found["resampled"]["drop"])


def test_a_network_whose_outputs_bear_no_labels(audit_file):
    change_audit(audit_file, stages={"dissection": {"bootstrap": 0, "permutations": 0}, "ablation": {"images": 30}})
    found = run(audit_file)
    (layer,) = found["ablation"][0].table("ablation_layers").to_pylist()
    assert (layer["labelled"], layer["accuracy"], layer["nothing"]) == (0, None, 0.0)
    units = found["ablation"][0].table("ablation_units").to_pandas()
    assert units.accuracy_drop.isna().all()
    assert units.flipped.between(0, 1).all()
    assert all(cached for _, cached in run(audit_file).values())


def test_a_sentence():
    assert report.causal_words("deer", 0.123, (0.09, 0.15), 0.011) == (
        "Without it deer loses 0.12 [0.09, 0.15] nats of log-odds, without a random unit of the same size 0.01."
    )
    assert (
        report.causal_words(None, 0.1, (0.0, 0.2), None)
        == "Without it all pictures lose 0.10 [0.00, 0.20] nats of log-odds."
    )
