"""Audit files that are damaged or malicious: one clear sentence each, in time, and nothing runs.

MICROTOME_SOAK=1 tries 10,000 mutations instead of 200 and prints what became of them.
"""

import codecs
import copy
import os
import random
import re
import time
from collections import Counter

import pytest
import yaml

from flows.auditfile import read_audit
from flows.yamlfile import LARGEST, MOST, override, parse, read_yaml
from microtome.errors import InputError
from tests.test_auditfile import GOOD

CASES = 10_000 if os.environ.get("MICROTOME_SOAK") else 200
SECONDS = 10.0


def laughs(levels):
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


BAD_TEXTS = {
    "billion laughs": (laughs(9), "must hold at most 10000 values, aliases written out"),
    "laughs in keys": (laughs(3) + "\nb: {*a2 : 1}", "keys must be words"),
    "laughs by merging": (
        "a0: &a0 {x: 1, y: 2}\n"
        + "\n".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)),
        "must hold at most 10000 values",
    ),
    "an alias of itself": ("name: &a [*a]", ":1: the alias *a stands inside what it repeats"),
    "two that hold each other": ("a: &a {b: &b {c: *a}}", "the alias *a stands inside"),
    "a key that is itself": ("&a {*a : 1}", "the alias *a stands inside"),
    "an alias before its anchor": ("name: *b", "no anchor &b stands before the alias *b"),
    "a key twice": ("name: x\nseed: 1\nname: y", ":3: name: is given twice, first in line 1"),
    "an inner key twice": ("network: {load: a:b, load: os:system}", ":1: load: is given twice, first in line 1"),
    "a key of null": ("null: 1", "keys must be words, got None"),
    "a key of a number": ("1: 1", "keys must be words, got 1"),
    "a key of YAML's yes": ("on: 1", "keys must be words, got True; put it into quotes"),
    "a list as key": ("[a]: 1", "keys must be words, got a list or mapping"),
    "a key of two lines": ('"a\\nb": 1', "keys must be words, got 'a\\nb'"),
    "a key that turns": ('"a\\u202eb": 1', "keys must be words, got 'a\\u202eb'"),
    "a python object": ("name: !!python/object/apply:os.system ['touch evil']", "must have no tags, got"),
    "a tag of its own": ("name: !x 1", "must have no tags, got '!x'"),
    "a tagged mapping": ("--- !!python/object:os.x {a: 1}", "must have no tags"),
    "a binary": ("name: !!binary gIGC", "must have no tags"),
    "a long number": ("seed: " + "9" * 5000, "numbers must have at most 40 characters, got 5000"),
    "a long fraction": ("seed: 0." + "9" * 5000, "numbers must have at most 40 characters"),
    "a long hexadecimal": ("seed: 0x" + "f" * 5000, "numbers must have at most 40 characters"),
    "a number without digits": ("seed: 0x_", "is no number, got '0x_'"),
    "infinite": ("seed: .inf", "numbers must be finite, got .inf"),
    "not a number": ("seed: [1, .NaN]", "numbers must be finite, got .NaN"),
    "too large for a double": ("seed: 1.0e+999", "numbers must be finite, got 1.0e+999"),
    "deep lists": ("name: " + "[" * 10_000 + "]" * 10_000, "is not YAML: brackets are nested deeper than 50"),
    "deep mappings": ("{a: " * 10_000, "is not YAML: brackets are nested deeper than 50"),
    "deep by dashes": ("- " * 10_000 + "x", "must be nested at most 50 deep"),
    "deep by aliases": (
        "a0: &a0 [1]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 60)),
        "must be nested at most 50 deep",
    ),
    "wide": ("a: [" + "1," * (MOST + 10) + "1]", "must hold at most 10000 values"),
    "two documents": ("name: x\n---\nname: y", ":2: must hold one document, got a second"),
    "merging a word": ("<<: x", "<< must name a mapping"),
    "merging a list of words": ("<<: [x]", "<< must name a mapping"),
    "a null character": ("name: x\0", ":1: must hold no control characters, got U+0000"),
    "an escape": ("name: x\nseed: \x1b[31m", ":2: must hold no control characters, got U+001B"),
    "an escaped null": ('name: "\\0"', "must hold no control characters, got U+0000"),
    "half a character": ('name: "\\ud800"', "must hold no control characters, got U+D800"),
    "no character at all": ('name: "\\U99999999"', "is not YAML"),
    "not closed": ("name: [x", "is not YAML"),
    "tabs": ("name:\n\t- x", "is not YAML"),
    "an unknown directive": ("%YAML 9.9\n---\nname: x", "is not YAML"),
    "empty": ("", "must hold keys and values, got nothing"),
    "only a comment": ("# x", "must hold keys and values, got nothing"),
    "a list": ("- x", "must hold keys and values, got list"),
    "a word": ("x", "must hold keys and values, got str"),
}


@pytest.mark.parametrize(("text", "words"), BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
def test_text_that_is_refused(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audit.yaml").write_text(text)
    began = time.monotonic()
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read_audit(tmp_path / "audit.yaml")
    assert time.monotonic() - began < SECONDS
    assert all("\n" not in fault and len(fault) < 400 for fault in caught.value.faults)
    assert os.listdir(tmp_path) == ["audit.yaml"]


BAD_BYTES = {
    "UTF-16": (GOOD.encode("utf-16"), "must be UTF-8, got UTF-16; save it as UTF-8"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), "must hold no control characters, got U+0000"),
    "UTF-32": (GOOD.encode("utf-32"), "must be UTF-8, got UTF-32"),
    "Latin-1": (
        GOOD.replace("name: x", "name: x\nseed: \xe9").encode("latin-1"),
        ":2: must be UTF-8, got the byte 0xe9",
    ),
    "half a mark in the middle": (b"name: \xff\xfe", "must be UTF-8, got the byte 0xff"),
    "noise": (random.Random(0).randbytes(1000), "must"),
    "too large": (b"#" * (LARGEST + 1), "must have at most 256 KiB"),
}


@pytest.mark.parametrize(("data", "words"), BAD_BYTES.values(), ids=BAD_BYTES.keys())
def test_bytes_that_are_refused(tmp_path, data, words):
    (tmp_path / "audit.yaml").write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_audit(tmp_path / "audit.yaml")
    assert words in str(caught.value)
    assert len(caught.value.faults) == 1


def test_a_file_of_100_megabytes_is_not_read(tmp_path):
    with (tmp_path / "audit.yaml").open("wb") as stream:
        stream.truncate(100 << 20)
    began = time.monotonic()
    with pytest.raises(InputError, match="must have at most 256 KiB"):
        read_audit(tmp_path / "audit.yaml")
    assert time.monotonic() - began < 1


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    cases = [(tmp_path, "got a folder"), (tmp_path / "pipe", "got a pipe or device"), ("/dev/zero", "got a pipe or")]
    cases += [
        (tmp_path / "gone", "No such file"),
        (tmp_path / ("x" * 300), "File name too long"),
        ("a\0b", "null byte"),
    ]
    for place, words in cases:
        with pytest.raises(InputError) as caught:
            read_audit(type(tmp_path)(place))
        assert words in str(caught.value)
        assert len(caught.value.faults) == 1


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "audit.yaml").write_bytes(codecs.BOM_UTF8 + GOOD.encode())
    assert read_audit(tmp_path / "audit.yaml").name == "x"


def test_all_faults_of_the_text_at_once(tmp_path):
    (tmp_path / "a").write_text("a: !x 1\na: 2\n1: .inf")
    with pytest.raises(InputError) as caught:
        read_yaml(tmp_path / "a")
    assert len(caught.value.faults) == 4


def test_plain_values_are_those_of_safe_load():
    """Oracle: yaml.safe_load, for everything that is allowed but dates, which stay text."""
    text = """
    a: [1, -2, 0x1f, 0b11, 010, 1_000, 1:30, 1.5, -1.5e+3, .5, ~, null, yes, Off, true, "1", '', x, "\\t\\u00e9"]
    b: &b {c: d, e: [f]}
    g: *b
    h: {<<: *b, c: own, i: j}
    k: {<<: [{l: 1}, {l: 2, m: 3}]}
    n: |
      two
      lines
    o:
    """
    assert parse(text, "x").value == yaml.safe_load(text)
    assert parse("a: 2020-99-99", "x").value == {"a": "2020-99-99"}
    assert parse("a: <<\n'<<': <<", "x").value == {"a": "<<", "<<": "<<"}


def test_whole_numbers_are_keys_below_the_top(tmp_path):
    file = tmp_path / "audit.yaml"
    file.write_text("names: {0: none, 1: road, '2': sky}\n")
    assert read_yaml(file).value == {"names": {"0": "none", "1": "road", "2": "sky"}}
    values = {}
    override(values, "names={0: none, 10: road}")
    assert values == {"names": {"0": "none", "10": "road"}}
    for text, words in {
        "a: {-1: b}": "keys must be words, got -1",
        "a: {1.5: b}": "keys must be words, got 1.5",
        "a: {on: b}": "keys must be words, got True",
        "a: {1: b, '1': c}": "1: is given twice, first in line 1",
    }.items():
        file.write_text(text)
        with pytest.raises(InputError, match=words):
            read_yaml(file)


def test_lines_of_keys_and_items():
    content = parse("a: 1\nb:\n  - x\n  - {c: 1,\n     d: 2}\n", "x")
    assert content.lines == {("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 1): 4, ("b", 1, "c"): 4, ("b", 1, "d"): 5}


def test_an_alias_is_a_value_of_its_own():
    content = parse("a: &a {x: 1}\nb: *a", "x").value
    override(content, "b.x=2")
    assert content == {"a": {"x": 1}, "b": {"x": 2}}


BAD_OPTIONS = {
    "seed": "--set: must be key=value, got 'seed'",
    "": "--set: must be key=value, got ''",
    "=1": "--set: the key must be names with dots between them, got ''",
    ".a=1": "--set: the key must be names with dots between them, got '.a'",
    "a..b=1": "--set: the key must be names",
    "a\nb=1": "--set: the key must be names",
    ".".join("a" * 1000) + "=1": "--set: the key must be names",
    "seed=[": "--set seed:1: is not YAML",
    "seed={a": "--set seed:1: is not YAML",
    "seed=*a": "--set seed:1: no anchor &a",
    "seed=!!python/object:x 1": "--set seed:1: must have no tags",
    "seed=.nan": "--set seed:1: numbers must be finite",
    "seed=" + "9" * 5000: "--set seed:1: numbers must have at most 40 characters",
    "seed=" + "[" * 10_000: "--set seed:1: is not YAML: brackets are nested deeper than 50",
    "seed=\udcff": "--set seed:1: must hold no control characters, got U+DCFF",
    "seed=1\n---\n2": "--set seed:2: must hold one document",
    "seed.x=1": "--set seed.x: seed has no keys of its own, it is 3",
    "network.layers.x=1": "--set network.layers.x: must choose from a list by a number below 1, got 'x'",
    "network.layers.1=x": "must choose from a list by a number below 1, got '1'",
    "network.layers.-1=x": "must choose from a list by a number below 1, got '-1'",
    "network.layers.0.a=x": "network.layers.0 has no keys of its own, it is 'features.11'",
    "sede=1": "sede: unknown key; did you mean 'seed'?",
    "seed=x": "seed: input should be a valid integer",
}


@pytest.mark.parametrize(("option", "words"), BAD_OPTIONS.items(), ids=[key[:40] for key in BAD_OPTIONS])
def test_options_that_are_refused(tmp_path, option, words):
    (tmp_path / "audit.yaml").write_text(GOOD + "seed: 3\n")
    with pytest.raises(InputError) as caught:
        read_audit(tmp_path / "audit.yaml", [option])
    (fault,) = caught.value.faults
    assert words in fault
    assert "\n" not in fault
    assert len(fault) < 300


def test_options_that_are_good(tmp_path):
    (tmp_path / "audit.yaml").write_text(GOOD)
    options = ["network.layers.0=a", "stages.dissection.tail=0.01", "stages.stability.filters=3", "device='cpu'"]
    audit = read_audit(tmp_path / "audit.yaml", options)
    assert audit.network.layers == ["a"]
    assert read_audit(tmp_path / "audit.yaml", ["stages.tree=false", "stages.tree.category=bird"]).stages.tree
    assert (audit.stages.dissection.tail, audit.stages.stability.filters, audit.device) == (0.01, 3, "cpu")


PIECES = [
    "[", "]", "{", "}", ":", "- ", "&a ", "*a", "!!str ", "!!python/object:x ", "<<: ", "? ", "| ", "> ", "'", '"', "#",
    "%",
    "---\n", "...\n", "\t", "\n", "\r", "\0", "\ufeff", "\u2028", "\u202e", "~", ".inf", ".nan", "-1", "0", "1e999",
    "9" * 50, "0x_", "2020-99-99", "yes", "null", "name", "stages", "gates", "<img src=x onerror=alert(1)>",
    "'; drop table units;--", "\\", "\"\\ud800\"", "𝔘", "[" * 200, "{a: " * 60, "x" * 5000, "../" * 50,
]  # fmt: skip
VALUES = [
    None, True, False, 0, -1, 1, 10**12, 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan"), "", "x", ".a:b",
    "sys:exit",
    "a\nb", "\x1b", "<b>", "x" * 10_000, [], [None], [[]], {}, {"a": 1}, [1, 2, 3], ["x"] * 50, "2020-99-99",
    "1e5", "nan",
]  # fmt: skip
FULL = (
    GOOD
    + """\
  stability: {top_images: 4, bootstrap: 10}
  tree: {category: bird}
  graph: {images: 20}
  saliency: {methods: [gradient]}
  adversarial: {eps: [1, 4], norms: [l2]}
  report: {top_images: 5}
gates:
  - {metric: layers.detectors, min: 1}
  - {metric: units.iou, max: 0.5, where: {unit: 3}}
execution: {threads: 2, shard_images: 64}
seed: 3
"""
)


def mutated_text(rng):
    text = FULL
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        end = at + rng.randrange(40)
        match rng.randrange(4):
            case 0:
                text = text[:at] + rng.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[end:]
            case 2:
                text = text[:at] + chr(rng.randrange(1, 0xD800)) + text[at + 1 :]
            case 3:
                text = text[:end] + text[at:end] + text[end:]
    return text


def mutated_values(rng):
    content = copy.deepcopy(yaml.safe_load(FULL))
    for _ in range(rng.randint(1, 3)):
        place = content
        while True:
            key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not (isinstance(place[key], dict | list) and place[key]) or rng.random() < 0.2:
                break
            place = place[key]
        match rng.randrange(4):
            case 0 | 1:
                place[key] = rng.choice(VALUES)
            case 2:
                del place[key]
            case 3 if isinstance(place, dict):
                place[str(rng.choice(VALUES))[:50] or "y"] = place[key]
        if not content:
            break
    return yaml.dump(content)


def outcome(file):
    """The audit, or what is wrong with it; any other exception fails the test."""
    try:
        return read_audit(file), ()
    except InputError as error:
        return None, error.faults


@pytest.mark.parametrize("mutated", [mutated_text, mutated_values])
def test_mutations_end_in_an_audit_or_in_sentences(tmp_path, mutated):
    file = tmp_path / "audit.yaml"
    counts = Counter()
    for number in range(CASES):
        text = mutated(random.Random(number))
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        began = time.monotonic()
        audit, said = outcome(file)
        assert time.monotonic() - began < SECONDS, (number, text)
        counts["accepted" if audit else "refused"] += 1
        assert sane(audit) if audit else said, (number, text)
        assert all(fault and "\n" not in fault and "\x1b" not in fault for fault in said), (number, said)
    print(f"{mutated.__name__}: {CASES} cases, {dict(counts)}")
    assert counts["refused"] > CASES / 10
    assert counts["accepted"] > CASES / 50


def sane(audit):
    """What no accepted audit may lack."""
    sides = [
        *(audit.network.input.size or ()),
        *(side for data in audit.named_datasets.values() for side in data.mask_size or ()),
    ]
    limits = [limit for gate in audit.gates for limit in (gate.min, gate.max, gate.max_drop) if limit is not None]
    return (
        all(1 <= side <= 16384 for side in sides)
        and min(audit.network.input.std or (1,)) > 0
        and all(abs(limit) < float("inf") for limit in limits)
        and all(audit.network.layers)
        and audit.name.isprintable()
        and 0 <= audit.seed < 2**32
        and (audit.execution.threads or 1) <= 1024
    )
