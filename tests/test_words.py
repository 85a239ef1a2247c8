"""Masks as words of 8 x 8 pixels: against a literal walk over the pixels."""

import numpy as np
import pytest
import torch

from microtome.quantify.upsample import Lit
from microtome.quantify.words import LABEL, WHOLE, label_words, lit_words, tiles, tiling, whole_words


def literal_words(mask):
    """{tile: word} of a (rows, columns) mask, as the definition has it."""
    words = {}
    for row, column in zip(*np.nonzero(mask), strict=True):
        tile = row // 8 * -(-mask.shape[1] // 8) + column // 8
        words[int(tile)] = words.get(int(tile), 0) | 1 << int(row % 8 * 8 + column % 8)
    return words


def test_a_word_by_hand():
    plane = np.zeros((9, 17), np.uint16)
    plane[0, 0] = plane[8, 16] = 2
    plane[1, 9] = 1
    found = label_words(plane.ravel(), np.array([30, 40]), (9, 17))
    assert found.tolist() == [(1 << 9, 30, 1), (1, 40, 0), (1, 40, 5)]
    assert (tiling((9, 17)), tiles((9, 17)), tiling((8, 16))) == ((2, 3), 6, (1, 2))


@pytest.mark.parametrize("masks", [(8, 8), (3, 5), (16, 24), (13, 21), (112, 113)])
def test_words_hold_every_pixel_and_no_other(masks):
    rng = np.random.default_rng(masks)
    plane = rng.integers(0, 4, masks).astype(np.uint16)
    plane[: masks[0] // 2] = 3
    found = label_words(plane.ravel(), np.array([5, 6, 9]), masks)
    for local, concept in enumerate((5, 6, 9), 1):
        own = found[found["concept"] == concept]
        assert dict(zip(own["tile"].tolist(), own["word"].tolist(), strict=True)) == literal_words(plane == local)
    assert label_words(np.zeros(masks[0] * masks[1], np.uint16), np.array([5]), masks).tolist() == []


@pytest.mark.parametrize("masks", [(8, 8), (13, 21), (3, 5)])
def test_lit_words_are_those_of_every_unit_in_every_image(masks):
    rng = np.random.default_rng(0)
    images, units, pixels = 4, 5, masks[0] * masks[1]
    lit = rng.random((images, units, pixels)) < rng.choice([0, 0.1, 1], (images, units, 1))
    lit[2] = False
    image, unit, pixel = np.nonzero(lit)
    order = np.lexsort((rng.permutation(len(pixel)), unit, image))
    image, unit, pixel = (torch.from_numpy(part[order]) for part in (image, unit, pixel))
    found = lit_words(Lit(image * units + unit, image * pixels + pixel, units, pixels), images, masks)
    got = list(zip(found.cell.tolist(), found.unit.tolist(), found.word.tolist(), strict=True))
    assert got == sorted(got)
    assert got == sorted(
        (image * tiles(masks) + tile, unit, word)
        for image in range(images)
        for unit in range(units)
        for tile, word in literal_words(lit[image, unit].reshape(masks)).items()
    )


def test_nothing_lit_is_no_word():
    none = torch.zeros(0, dtype=torch.long)
    found = lit_words(Lit(none, none, 3, 64), 2, (8, 8))
    assert (len(found.cell), len(found.unit), len(found.word)) == (0, 0, 0)


def test_a_label_of_the_whole_picture_has_no_tile():
    assert whole_words(np.array([3, 1])).tolist() == [(0, 3, WHOLE), (0, 1, WHOLE)]
    assert whole_words(np.zeros(0, np.int64)).dtype == LABEL
