"""What others published: tallies and lists of labels, every fault of them, agreement by hand, and the commands."""

import csv
import itertools
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flows.compare import comparison
from flows.plan import Plan, Request
from microtome.errors import InputError
from microtome.quantify.agreement import NEAR, SAME, WORD, agreements, content, nouns, plain, singular
from microtome.quantify.published import is_tally, layer_of, read_labels, read_tally
from microtome.quantify.wordnet import WordNet
from microtome.report.comparison import page as compared_page
from microtome.report.comparison import sentences
from microtome.report.imported import ImportedLayer, page
from storage import RunStore, open_files
from tasks.dissection import STAGE as DISSECTION
from tasks.imported import STAGE
from tests.commands import status
from tests.conftest import change_audit, opened, write_audit
from tests.test_pages_stability import parts_of
from tests.test_readonly import audited

CATEGORIES = ("object", "color")
HEAD = ["unit", "category", "label", "score"]
HEAD += [f"{c}-{part}" for c in CATEGORIES for part in ("label", "truth", "activation", "intersect", "iou")]
EVIL = "<img src=x onerror=alert(1)>"


def write_rows(file: Path, rows, head=HEAD) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, head)
        writer.writeheader()
        writer.writerows(rows)
    return file


def row(unit, *found, digits=9, **other) -> dict:
    """A row of a tally: of each category the label, L, A and I; other cells as they are given."""
    made = {"unit": unit}
    for category, (label, truth, lit, both) in zip(CATEGORIES, found, strict=True):
        union = lit + truth - both
        iou = round(both / union, digits) if union else 0.0
        made |= dict(zip((f"{category}-{part}" for part in ("label", "truth", "activation", "intersect", "iou")),
                         (label, truth, lit, both, iou), strict=True))  # fmt: skip
    best = max(CATEGORIES, key=lambda c: made[f"{c}-iou"])
    made |= {"category": best, "label": made[f"{best}-label"], "score": made[f"{best}-iou"]}
    return made | other


ROWS = [
    row(2, ("cat", 100, 60, 40), ("red-c", 300, 200, 5)),  # 40 / 120, 5 / 495
    row(1, ("dog", 50, 30, 2), ("red-c", 300, 90, 30)),  # 2 / 78, 30 / 360
    row(3, ("cat", 100, 10, 0), ("blue-c", 80, 20, 0)),  # meets none
]


def test_a_tally_by_hand(tmp_path):
    tally = read_tally(write_rows(tmp_path / "conv5-result.csv", ROWS), "conv5")
    assert tally.labels == [("red-c", "color", 30 / 360), ("cat", "object", 40 / 120), (None, "object", 0.0)]
    assert tally.concepts == [["dog", "red-c"], ["cat", "red-c"], [None, None]]
    assert tally.iou.tolist() == [[2 / 78, 30 / 360], [40 / 120, 5 / 495], [0, 0]]
    assert (tally.detectors.units, tally.detectors.per_category, tally.detectors.per_unit) == (2, 2, 2)
    assert (tally.units, tally.background) == (3, 0)


def test_unique_detectors_are_counted_in_both_ways(tmp_path):
    """Two units called cat by their label, of which one finds red, too: 2 concepts per category, 1 per unit."""
    rows = [row(1, ("cat", 100, 60, 40), ("red-c", 300, 200, 30)), row(2, ("cat", 100, 60, 40), ("red-c", 300, 9, 1))]
    tally = read_tally(write_rows(tmp_path / "t.csv", rows), "a")
    assert (tally.detectors.units, tally.detectors.per_category, tally.detectors.per_unit) == (2, 2, 1)


@pytest.mark.parametrize(
    "lit", [0, 5000]
)  # of the pictures of its category NetDissect counts none, Lite those it meets
def test_the_background_is_no_concept(tmp_path, lit):
    rows = [row(1, ("", 24000, lit, 900), ("red-c", 300, 200, 40)), row(2, ("cat", 9, 9, 9), ("red-c", 300, 10, 1))]
    tally = read_tally(write_rows(tmp_path / "t.csv", rows), "a")
    assert tally.concepts[0] == [None, "red-c"]
    assert tally.iou[0].tolist() == [0, 40 / 460]
    assert tally.background == 1


def test_the_background_stands_where_a_unit_meets_nothing_of_a_category(tmp_path):
    """With its own counts beside a score of 0: no fault, and no concept."""
    rows = [row(1, ("", 24000, 500, 100), ("red-c", 300, 200, 40)) | {"object-iou": "0.0"}]
    tally = read_tally(write_rows(tmp_path / "t.csv", rows), "a")
    assert (tally.concepts[0], tally.background) == ([None, "red-c"], 0)
    assert (tally.intersection[0, 0], tally.label_pixels[0, 0]) == (0, 0)


def test_counts_may_be_written_as_floats_and_scores_in_full(tmp_path):
    whole = {**row(1, ("cat", 100, 60, 40), ("red-c", 300, 200, 5), digits=17), "object-activation": "60.0"}
    assert read_tally(write_rows(tmp_path / "t.csv", [whole]), "a").iou[0].tolist() == [1 / 3, 5 / 495]


FAULTS = [
    ({"unit": "0"}, "2: unit, which is counted from one, must be a whole number from 1 to 1,000,000, got '0'"),
    ({"unit": "x"}, "2: unit, which is counted from one, must be a whole number from 1 to 1,000,000, got 'x'"),
    ({"object-truth": "many"}, "2: object-truth must be a finite number, got 'many'"),
    ({"object-truth": "0.5"}, "2: object-truth must be a whole number from 0"),
    ({"color-activation": "-1"}, "2: color-activation must be a whole number from 0"),
    ({"object-iou": "nan"}, "2: object-iou must be a finite number, got 'nan'"),
    ({"object-iou": "1.5"}, "2: object-iou must be from 0 to 1, got '1.5'"),
    ({"object-iou": "0.334"}, "2: object-iou must be 0.333333333, which is 40 / (60 + 100 - 40), got 0.334"),
    ({"color-iou": "0"}, "2: color-iou must be 0.0101010101, which is 5 / (200 + 300 - 5), got 0"),
    ({"object-intersect": "70"}, "2: object-intersect must be no more than object-truth and object-activation, got 70"),
    ({"category": "part"}, "2: category must be one of object, color, got 'part'"),
    ({"label": "dog"}, "2: label must be that of its category, 'cat', got 'dog'"),
    ({"score": "0.2"}, "2: score must be that of its category, 0.333333, got 0.2"),
    ({"category": "color", "label": "red-c", "score": "0.01010101"}, "2: label must be the best concept, got 'red-c'"),
    ({"unit": "1"}, "3: unit must be unique, and 1 stands in line 2 already"),
    ({"object-truth": 110, "object-iou": 40 / 130, "score": 40 / 130}, "5: object-truth of 'cat' must be the same in"),
    ({"unit": "7"}, " must have every unit from 1 to 7, got no row of 2, 5, 6"),
]


@pytest.mark.parametrize(("changed", "fault"), FAULTS, ids=[fault[:40] for _, fault in FAULTS])
def test_each_fault_of_a_tally_is_named_by_its_line(tmp_path, changed, fault):
    rows = [ROWS[0] | changed, *ROWS[1:], row(4, ("cat", 100, 60, 39), ("red-c", 300, 200, 5))]
    file = write_rows(tmp_path / "t.csv", rows)
    with pytest.raises(InputError) as caught:
        read_tally(file, "a")
    assert any(found.startswith(f"{file}:{fault}") for found in caught.value.faults), caught.value.faults


def test_rounding_is_no_fault(tmp_path):
    for digits in (2, 4, 9):
        tally = read_tally(write_rows(tmp_path / "t.csv", [row(1, *(("a", 7, 9, 3),) * 2, digits=digits)]), "a")
        assert tally.iou[0, 0] == 3 / 13


def test_all_faults_are_told_at_once_before_anything_is_written(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    bad = [ROWS[0] | {"object-iou": "0.5"}, ROWS[1] | {"unit": "2", "color-truth": "few"}]
    write_rows(folder / "net_conv4.csv", bad)
    write_rows(folder / "net_conv5.csv", [{k: v for k, v in ROWS[0].items() if k != "color-iou"}],
               [name for name in HEAD if name != "color-iou"])  # fmt: skip
    write_rows(folder / "net_conv6.csv", [{"unit": 1, "category": "object"}], ["unit", "category"])
    workspace = tmp_path / "w"
    code, out, said = status("import", "netdissect", str(folder), "--workspace", str(workspace))
    assert (code, out) == (2, "")
    for fault in (
        "net_conv4.csv:2: object-iou must be 0.333333333",
        "net_conv4.csv:3: color-truth must be a finite number, got 'few'",
        "net_conv4.csv:3: unit must be unique",
        "net_conv4.csv: must have every unit from 1 to 2, got no row of 1",
        "net_conv5.csv:1: each category must have five columns, got no color-iou",
        "net_conv6.csv: must have the columns unit, category, label, score; got unit, category",
    ):
        assert fault in said
    assert not list(workspace.rglob("*.json"))
    assert not list(workspace.rglob("*.parquet"))


def test_tables_that_are_no_table(tmp_path):
    empty = write_rows(tmp_path / "a.csv", [])
    with pytest.raises(InputError, match="must have a row per unit, got none"):
        read_tally(empty, "a")
    with pytest.raises(InputError, match="must have columns of categories, such as object-iou, got unit, category"):
        read_tally(write_rows(tmp_path / "b.csv", [dict.fromkeys(HEAD[:4], 1)], HEAD[:4]), "a")
    with pytest.raises(InputError, match="no such file"):
        read_tally(tmp_path / "c.csv", "a")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("conv5-result.csv", "conv5"), ("Mixed_7c-result.csv", "Mixed_7c"), ("tally.csv", ""),
        ("tally_layer4.csv", "layer4"), ("tally-layer4.csv", "layer4"), ("netdissect_resnet50_layer4.csv", "layer4"),
    ],
)  # fmt: skip
def test_the_layer_that_a_name_names(name, layer):
    assert layer_of(Path(name)) == layer


def write_labels(file: Path, rows, scored=True) -> Path:
    head = ["layer", "unit", "description", *(["similarity"] if scored else [])]
    return write_rows(file, [dict(zip(head, each, strict=False)) for each in rows], head)


def test_lists_of_labels(tmp_path):
    file = write_labels(tmp_path / "c.csv", [("b", 1, "a dog", 0.5), ("b", 0, "red", 0.25), ("a", 0, "x, y", 1)])
    found = [(each.layer, each.unit, each.label, each.score) for each in read_labels(file)]
    assert found == [("b", 0, "red", 0.25), ("b", 1, "a dog", 0.5), ("a", 0, "x, y", 1.0)]
    assert not is_tally(file)
    (plain_one,) = read_labels(write_labels(tmp_path / "m.csv", [("a", 0, "Red things")], scored=False))
    assert plain_one.score is None
    bad = [
        ("a", 0, "x", 1),
        ("a", 0, "y", 1),
        ("a", "-1", "z", 1),
        ("a", 2, " ", 1),
        ("a", 3, "u", "high"),
        ("", 4, "v", 1),
    ]
    with pytest.raises(InputError) as caught:
        read_labels(write_labels(tmp_path / "bad.csv", bad))
    assert [fault.rpartition("bad.csv:")[2][:30] for fault in caught.value.faults] == [
        "3: layer and unit must be uniq", "4: unit, which is counted from", "5: description must be a name,",
        "6: similarity must be a finite", "7: layer must be a name, got '",
    ]  # fmt: skip


def test_words():
    assert [plain(label) for label in ("red-c", "casino-outdoor-s", "game_room-s", " The Cat!", "polka-dotted")] == [
        "red", "casino outdoor", "game room", "the cat", "polka dotted",
    ]  # fmt: skip
    assert [singular(word) for word in ("dogs", "grass", "bus", "goggles")] == ["dog", "grass", "bus", "goggle"]
    assert content("The white edges along things") == {"white", "edge", "along"}


FIRST = ["red-c", "dog", "cat", "sky", "dog"]
SECOND = ["red", "Dogs on grass", "cat", "sea", "cat"]


def test_agreement_by_hand():
    same, word = agreements(FIRST, SECOND, None)
    assert (same.measure, same.units, same.agreeing, same.value) == (SAME, 5, 2, 0.4)
    assert (word.measure, word.agreeing, word.value) == (WORD, 3, 0.6)
    assert (same.low, same.high) == pytest.approx((0.1176, 0.7693), abs=1e-4)  # Wilson's, from a table
    assert same.chance == pytest.approx((1 * 1 + 1 * 2) / 25)  # red once in each; cat once, and twice
    assert word.chance == pytest.approx((1 * 1 + 2 * 1 + 1 * 2) / 25)
    assert agreements([], [], None) == []


def test_chance_is_what_every_shuffle_gives_on_average():
    """Against all 120 orders, and the p-value against the share of them that agree as much."""
    for found, of in zip(agreements(FIRST, SECOND, None), (lambda a, b: plain(a) == plain(b),
                         lambda a, b: bool(content(a) & content(b))), strict=True):  # fmt: skip
        every = np.array(
            [np.mean([of(a, b) for a, b in zip(FIRST, order, strict=True)]) for order in itertools.permutations(SECOND)]
        )
        assert found.chance == pytest.approx(every.mean())
        assert found.p_value == pytest.approx((every >= found.value - 1e-9).mean(), abs=0.05)
        assert found.chance_p95 == pytest.approx(np.quantile(every, 0.95), abs=0.21)


def test_labels_that_are_numbered_otherwise_agree_as_chance_has_it():
    names = [f"word{number}" for number in range(200)]
    same = agreements(names, names, None)[0]
    shifted = agreements(names, names[1:] + names[:1], None)[0]
    assert (same.value, same.p_value) == (1, 1 / 1001)
    assert (shifted.value, shifted.p_value) == (0, 1)
    assert same.chance == shifted.chance == 1 / 200


KINDS = {"entity": [], "animal": ["entity"], "dog": ["animal"], "domestic_cat": ["animal"], "colour": [], "hot_dog": []}
"""A WordNet of six senses: what each is a kind of."""


def write_wordnet(folder: Path) -> Path:
    """Its files, in the form of wndb(5WN): a sense's number is its line's offset. `dog` is a sausage, too."""
    folder.mkdir(parents=True)
    lines = {name: f"{{{name}}} 05 n 01 {name} 0 {len(above):03d}" + "".join(f" @ {{{kind}}} n 0000" for kind in above)
             + " | a gloss @ 00000000\n" for name, above in KINDS.items()}  # fmt: skip
    offsets, at = {}, len("  1 a licence\n")
    for name, line in lines.items():
        offsets[name] = f"{at:08d}"
        at += len(line.format(**dict.fromkeys(KINDS, "0" * 8)))
    (folder / "data.noun").write_text("  1 a licence\n" + "".join(line.format(**offsets) for line in lines.values()))
    lemmas = ["  1 a licence\n"]
    for name, of in ({name: [name] for name in KINDS} | {"dog": ["hot_dog", "dog"]}).items():
        lemmas.append(f"{name} n {len(of)} 1 @ {len(of)} 0 {' '.join(offsets[sense] for sense in of)}  \n")
    (folder / "index.noun").write_text("".join(lemmas))
    return folder


def test_distances_in_a_wordnet_by_hand(tmp_path):
    folder = write_wordnet(tmp_path / "wordnet")
    words = WordNet(*((folder / name).read_bytes() for name in ("index.noun", "data.noun")))

    def near(one, other):
        return words.similarity(nouns(one, words), nouns(other, words))

    assert len(words.senses("dog")) == 2
    assert words.senses("unicorn") == []
    assert near("dog", "dog") == near("Dogs", "a dog") == 1
    assert near("dog", "domestic cat") == 1 / 3  # up to animal, and down
    assert near("dog", "entity") == near("entity", "dog") == 1 / 3
    assert near("hot dog", "dog") == 1  # the sausage; the whole label goes before its words
    assert near("dog", "colour") == 0
    assert nouns("no such words", words) == ()
    (found,) = [
        each for each in agreements(["dog", "dog", "x"], ["domestic cat", "dog", "dog"], words) if each.measure == NEAR
    ]
    assert (found.units, found.agreeing, found.value) == (2, None, pytest.approx(2 / 3))
    assert found.chance == pytest.approx((1 / 3 + 1) / 2)
    assert len(agreements(["x"], ["dog"], words)) == 2  # nobody knows an x


def test_a_wordnet_is_found_where_nltk_keeps_it_and_never_fetched(tmp_path, monkeypatch):
    for name in ("NLTK_DATA", "WNSEARCHDIR"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert WordNet.found() is None
    folder = write_wordnet(tmp_path / "data/corpora/wordnet")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "data"))
    assert WordNet.found().senses("animal")
    zipped = tmp_path / "zipped/corpora/wordnet.zip"
    zipped.parent.mkdir(parents=True)
    with zipfile.ZipFile(zipped, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"wordnet/{file.name}")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "zipped"))
    assert WordNet.found().senses("animal")
    monkeypatch.setenv("NLTK_DATA", "")
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    assert WordNet.found().senses("animal")


def netdissect(counts, units: int) -> list[dict]:
    """A tally as NetDissect-Lite's code has it, literally, from rows (unit, concept, category, I, A, L)."""
    categories = sorted({each["category"] for each in counts})
    rows = []
    for unit in range(units):
        data: dict = {"unit": unit + 1}
        best = (-1.0, "", "")
        for category in categories:
            pciou, chosen = 0.0, ("-", 0, 0, 0)
            for each in counts:
                if each["unit"] == unit and each["category"] == category:
                    both, lit, truth = each["intersection"], each["activation"], each["label_pixels"]
                    iou = both / (lit + truth - both + 1e-10)
                    if iou > pciou:
                        pciou, chosen = iou, (each["concept"], truth, lit, both)
            for part, value in zip(("label", "truth", "activation", "intersect"), chosen, strict=True):
                data[f"{category}-{part}"] = value
            data[f"{category}-iou"] = pciou
            best = max(best, (pciou, category, chosen[0]))
        data |= {"category": best[1], "label": best[2], "score": best[0]}
        rows.append(data)
    return sorted(rows, key=lambda data: -data["score"])  # as the tool does


@pytest.fixture(scope="module")
def beside(tmp_path_factory, broden):
    """An audit, and in its workspace what it counted as NetDissect writes it, imported; their files and folder."""
    from tests.conftest import NETWORK

    folder = tmp_path_factory.mktemp("beside")
    (folder / "nets.py").write_text(NETWORK)
    content = {
        "name": "ours",
        "network": {"load": "nets:tiny", "layers": ["1", "4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": str(broden)},
        "stages": {"dissection": {"bootstrap": 30, "permutations": 0}, "report": False},
    }
    file = write_audit(folder / "audit.yaml", content)
    audited(file)
    files = Plan(Request(file)).files
    counts = table_of(files, "ours", "tally", "iou")
    theirs = folder / "theirs"
    theirs.mkdir()
    for layer in ("1", "4"):
        own = [each for each in counts if each["layer"] == layer]
        rows = netdissect(own, 1 + max(each["unit"] for each in own))
        write_rows(theirs / f"{layer}-result.csv", rows, list(rows[0]))
    write_labels(theirs / "clip.csv", [])
    code, out, said = status("import", "netdissect", str(theirs), "--workspace", files.location(""))
    assert code == 0, said
    assert "clip.csv: passed over, since it has not the columns of a tally" in said
    assert re.search(r"run +\S+  done in", out)
    return files, folder


def table_of(files, run: str, stage: str, table: str) -> list[dict]:
    from storage.runs import finished_stages

    found = finished_stages(files, RunStore(files).find(run), print)[stage]
    return found.table(table).to_pylist()


def test_what_an_audit_counted_comes_back_as_its_own_labels(beside):
    files, _ = beside
    ours, theirs = (table_of(files, *of, "units") for of in (("ours", "dissection"), ("theirs", "imported")))
    assert len(ours) == len(theirs) == 20
    for one, other in zip(ours, theirs, strict=True):
        for column in ("layer", "unit", "concept", "iou", "detector"):
            assert one[column] == other[column], (column, one, other)
        assert other["category"] == (one["category"] if one["concept"] else None)
        unknown = set(other) - {"layer", "unit", "concept", "category", "iou", "detector"}
        assert {other[column] for column in unknown} == {None}
    layers = [table_of(files, *of, "layers") for of in (("ours", "dissection"), ("theirs", "imported"))]
    for one, other in zip(*layers, strict=True):
        for column in ("layer", "units", "detectors", "unique_per_category", "unique_per_unit", "min_iou"):
            assert one[column] == other[column], column
        assert other["mean_iou"] == pytest.approx(one["mean_iou"])
        assert other["images"] is other["confirmed"] is other["detectors_low"] is other["tail"] is None
    counts = {(each["layer"], each["unit"], each["concept"]): each for each in table_of(files, "ours", "tally", "iou")}
    scores = table_of(files, "theirs", "imported", "iou")
    assert len(scores) > 20
    for score in scores:
        own = counts[score["layer"], score["unit"], score["concept"]]
        assert own | {"concept_id": None} == score


def test_the_commands_read_it_as_any_run(beside):
    files, folder = beside
    where = ("--workspace", files.location(""))
    for command in (("runs",), ("show", "theirs"), ("history", "theirs"), ("verify", "theirs"), ("gc", "--dry-run")):
        code, out, said = status(*command, *where)
        assert code == 0, said
        assert command[0] == "gc" or "theirs" in out or "3 stages and 2 input files read, faults found: 0" in out
    query = "select count(*) n from units u join labels l using (run_id, layer, unit) where u.concept = l.label"
    code, out, _ = status("sql", query, "--run", "theirs", "--format", "csv", *where)
    labelled = sum(each["concept"] is not None for each in table_of(files, "theirs", "imported", "units"))
    assert out.split() == ["n", str(labelled)]
    code, out, _ = status("sql", "select distinct run_id from units", "--run", "all", "--format", "csv", *where)
    assert len(out.split()) == 3
    code, out, _ = status("open", "theirs", *where)
    recomputed = sum(each["recomputed"] for each in table_of(files, "theirs", "imported", "imported"))
    assert f"All {recomputed:,} IoUs of 2 layers follow" in (Path(out.strip()).parent / "imported.html").read_text()
    code, out, _ = status("report", "theirs", "--single-file", str(folder / "one.html"), *where)
    assert code == 0
    assert "which definitions differ" in (folder / "one.html").read_text()


def test_a_file_that_changed_is_another_stage_and_the_same_one_is_cached(beside):
    files, folder = beside
    first = RunStore(files).find("theirs")
    assert status("import", "netdissect", str(folder / "theirs"), "--workspace", files.location(""))[0] == 0
    again = RunStore(files).find("theirs")
    assert again.run_id != first.run_id
    assert all(stage["cached"] for stage in again.stages.values())
    assert again.stages["imported"]["folder"] == first.stages["imported"]["folder"]
    named = ("--layer", "conv1", "--workspace", files.location(""))
    assert status("import", "netdissect", str(folder / "theirs/1-result.csv"), *named)[0] == 0
    other = RunStore(files).find("1-result")
    assert other.stages["imported"]["folder"] != first.stages["imported"]["folder"]
    assert {each["layer"] for each in table_of(files, "1-result", "imported", "units")} == {"conv1"}


def test_an_audit_beside_it(beside):
    files, _ = beside
    ours, theirs = (RunStore(files).find(name) for name in ("ours", "theirs"))
    found = comparison(files, ours, theirs)
    assert [layer.name for layer in found.layers] == ["1", "4"]
    for layer in found.layers:
        same = layer.agreements[0]
        assert (same.agreeing, same.value) == (same.units, 1)
        assert all(list(each.first) == list(each.second) for each in layer.concepts)
        assert layer.matched is None
    by = {(figure.name, figure.row): figure for figure in found.figures}
    assert by["detectors, luck included", "4"].difference.value == 0
    assert all(figure.difference.low is None for figure in found.figures)
    assert by["detectors, luck included", "4"].first.low is not None  # the audit's own interval stays beside it
    assert any("names neither the network nor the pictures" in caution for caution in found.cautions)
    assert any("which method or which network is better" in caution for caution in found.cautions)
    view = compared_page(found, "c.html")
    assert "What differs in the making" not in [section.heading for section in view.sections]
    assert not any("same pictures" in part.text for part in parts_of(view, "text"))
    assert any(
        re.match(r"(\d+) of \1 units of 4 carry the same label in both, 100.0%", said) for said in sentences(found)
    )


def test_other_methods_beside_it(beside, tmp_path):
    files, _ = beside
    where = ("--workspace", files.location(""))
    units = [each for each in table_of(files, "theirs", "imported", "units") if each["concept"]]
    called = [(each["layer"], each["unit"], f"A {each['concept']}!", 0.5) for each in units]
    clip = write_labels(tmp_path / "clip.csv", [*called[:-3], ("fc", 0, EVIL, 0.1)])
    milan = write_labels(tmp_path / "milan.csv", [each[:3] for each in called] + [("4", 99, "a stray")], scored=False)
    for method, file in (("clip-dissect", clip), ("milan", milan)):
        code, _, said = status("import", method, str(file), *where)
        assert code == 0, said
    code, out, said = status("compare", "theirs", "clip", *where)
    assert code == 0, said
    assert "Left out, since theirs has no layer of the name: fc." in out
    assert "a word in common" in out
    assert "stage  figure" not in out  # a list of labels counts no detectors
    beside_milan = comparison(files, RunStore(files).find("theirs"), RunStore(files).find("milan"))
    why = {layer.name: layer.why for layer in beside_milan.layers}
    assert why == {"1": "", "4": "Units cannot be matched by number: one run has 12 of them, the other a unit 99."}
    code, out, said = status("history", "clip", *where)
    assert code == 0, said
    code, out, said = status("open", "clip", *where)
    assert "&lt;img src=x" in (Path(out.strip()).parent / "imported.html").read_text()


def test_runs_without_a_layer_in_common_are_refused(beside):
    files, folder = beside
    where = ("--workspace", files.location(""))
    assert status("import", "netdissect", str(folder / "theirs/4-result.csv"), "--layer", "x", *where)[0] == 0
    code, _, said = status("compare", "theirs", "4-result", *where)
    assert code == 2
    assert "both runs must label units of a layer of one name, got 1, 4 in" in said
    only = RunStore(files).find("4-result")
    assert comparison(files, only, only).layers[0].agreements[0].value == 1


def test_a_gate_against_what_was_published(beside):
    files, folder = beside
    file = folder / "audit.yaml"
    gates = [{"metric": "layers.detectors", "layer": "4", "max_drop": 0.5, "baseline": "theirs"},
             {"metric": "layers.confirmed", "layer": "4", "max_drop": 0.5, "baseline": "theirs"}]  # fmt: skip
    change_audit(file, gates=gates)
    detectors, confirmed = audited(file).gates
    number = next(each["detectors"] for each in table_of(files, "theirs", "imported", "layers") if each["layer"] == "4")
    assert detectors["note"] == f"before: {number:g}, over unknown pictures"
    assert (detectors["limit"], detectors["passed"]) == (number / 2, True)
    assert confirmed["verdict"] in ("not judged", "failed")  # nothing was confirmed there, nor asked for here
    assert confirmed["limit"] is None


def test_layers_are_named_or_asked_for(tmp_path):
    where = ("--workspace", str(tmp_path / "w"))
    folder = tmp_path / "alexnet"
    folder.mkdir()
    write_rows(folder / "tally.csv", ROWS)
    code, _, said = status("import", "netdissect", str(folder), *where)
    assert code == 2
    assert "--layer: must name the layer of" in said
    assert status("import", "netdissect", str(folder), "--layer", "conv5", *where)[0] == 0
    assert [run.name for run in RunStore(open_files(str(tmp_path / "w"))).all()] == ["alexnet"]
    write_rows(folder / "a_conv5.csv", ROWS)
    assert "--layer: names one, got 2 tallies" in status("import", "netdissect", str(folder), "--layer", "x", *where)[2]
    (folder / "tally.csv").rename(folder / "b_conv5.csv")
    assert (
        "a layer must have one tally, got several of 'conv5'" in status("import", "netdissect", str(folder), *where)[2]
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "must hold tallies of NetDissect" in status("import", "netdissect", str(empty), *where)[2]
    assert "no such file" in status("import", "milan", str(empty / "none.csv"), *where)[2]


SOURCE = {"layer": EVIL, "method": "netdissect", "file": EVIL, "sha256": "0" * 64, "units": 3, "labels": 2,
          "counted_from": 1, "recomputed": 6, "background": 4, "largest_difference": 5e-10}  # fmt: skip
COUNTS = {"detectors": 2, "unique_per_category": 2, "unique_per_unit": 1, "mean_iou": 0.1, "min_iou": 0.04}
UNITS = [
    {"unit": 0, "concept": EVIL, "category": "object", "iou": 0.2, "detector": True},
    {"unit": 1, "concept": "cat", "category": "object", "iou": 0.1, "detector": True},
    {"unit": 2, "concept": None, "category": None, "iou": 0.0, "detector": False},
]


def test_the_page_of_a_tally():
    view = page([ImportedLayer(SOURCE, COUNTS, UNITS, [])])
    assert view.headline.startswith(f"2 of 3 units of {EVIL} are detectors by NetDissect's file (IoU > 0.04)")
    assert [item[1] for item in view.figures.items] == ["2", "1", "2", "0.1000", "6"]
    tables = parts_of(view, "table")
    assert tables[0].rows == [[EVIL, "3", "2", "1", "2", "0.1000", "6"]]
    assert [line[0] for line in tables[2].rows][:3] == [
        "lit pixels in the denominator, A", "how a map is enlarged", "threshold of a unit",
    ]  # fmt: skip
    assert tables[3].rows == [[EVIL, "object", "1", "0.200"], ["cat", "object", "1", "0.100"]]
    assert tables[4].rows[0][:3] == ["0", "1", EVIL]
    assert tables[4].rows[2][2:] == ["–", "–", "0.000"]
    (advice,) = [part.text for part in parts_of(view, "text") if part.style == "advice"]
    assert f"(4 in {EVIL})" in advice


def test_the_page_of_a_list_of_labels():
    labels = [{"unit": unit, "label": label, "score": None} for unit, label in enumerate(["red", "red", EVIL])]
    source = SOURCE | {
        "method": "milan",
        "counted_from": 0,
        "recomputed": 0,
        "background": 0,
        "largest_difference": None,
    }
    view = page([ImportedLayer(source, None, [], labels)])
    assert view.headline.startswith("MILAN has 2 different labels for 3 units of 1 layer.")
    assert view.figures.items[2] == ("most frequent label", "red", "of 2 units")
    assert parts_of(view, "table")[1].rows == [["red", "2"], [EVIL, "1"]]


def test_the_page_in_a_browser(browser, tmp_path):
    folder = tmp_path / "alexnet"
    folder.mkdir()
    write_rows(folder / "tally.csv", [row(1, (EVIL, 100, 60, 40), ("red-c", 300, 200, 5)), ROWS[0]])
    code, out, said = status(
        "import", "netdissect", str(folder), "--layer", "conv5", "--workspace", str(tmp_path / "w")
    )
    assert code == 0, said
    index = Path(re.search(r"report +(.*)", out)[1])
    for width in (1440, 390):
        for name in ("index.html", "imported.html"):
            tab, heard = opened(browser, index.parent / name, width)
            assert heard == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.locator("img[src=x]").count() == 0
            tab.close()


def test_it_fills_tables_of_the_stages_that_measure():
    declared = {table.name: table for table in DISSECTION.tables}
    assert {table.name for table in STAGE.fills} == {"units", "layers", "iou"}
    assert all(table is declared[table.name] for table in STAGE.fills if table.name != "iou")
    assert not {table.name for table in STAGE.tables} & {table.name for table in STAGE.fills}


@pytest.mark.real
def test_known_figures_of_published_files(real_data):
    place = real_data / "published-labels"
    layers = {name: read_tally(place / f"netdissect_resnet50_{name}.csv", name) for name in ("layer1", "layer4")}
    last = layers["layer4"]
    assert last.printed.size == 12_288
    assert (last.detectors.units, last.detectors.per_unit, last.detectors.per_category) == (1355, 186, 227)
    first = layers["layer1"].detectors
    assert (first.units, first.per_unit, first.per_category) == (61, 20, 27)
    assert (last.background, layers["layer1"].background) == (440, 0)
    published = {(name, unit): label[0] for name, tally in layers.items() for unit, label in enumerate(tally.labels)}
    others = {
        method: {(each.layer, each.unit): each.label for each in read_labels(place / f"{method}_resnet50.csv")}
        for method in ("clip_dissect", "milan")
    }
    assert {method: len(found) for method, found in others.items()} == {"clip_dissect": 3904, "milan": 4904}
    agreeing = {
        (method, name): [
            each.agreeing
            for each in agreements(
                [label for (layer, _), label in published.items() if layer == name],
                [others[method][key] for key in published if key[0] == name],
                None,
            )
        ]
        for method in others
        for name in layers
    }
    assert agreeing == {
        ("clip_dissect", "layer1"): [21, 24], ("clip_dissect", "layer4"): [36, 88],
        ("milan", "layer1"): [0, 22], ("milan", "layer4"): [13, 88],
    }  # fmt: skip
    shifted = agreements([published["layer4", unit] for unit in range(2047)],
                         [others["clip_dissect"]["layer4", unit + 1] for unit in range(2047)], None)  # fmt: skip
    assert shifted[0].agreeing == 0  # so units count from one in the one file, and from zero in the other
