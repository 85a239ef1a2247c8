"""The loop that counts on which concepts the lit pixels of units fall."""

from __future__ import annotations

import numpy as np

from microtome.compiling import compiled


@compiled
def counted(lit, planes, numbered, counts):  # type: ignore[no-untyped-def]
    """Image, unit, concept and intersection of each count, sorted by them.

    Args:
        lit: maps, places and the number of pixels, as `Lit` has them.
        planes: (images, planes, pixels), as `Labels` has them.
        numbered: (images, concepts) the concepts of each picture, rising, and their local numbers: 0 of a label of the
            whole picture, -1 where there is none.
        counts: zeros, as many as there are local numbers; (images, units) zeros, to which lit pixels are added.
    """
    (maps, places, pixels), (concepts, local), (own, activated) = lit, numbered, counts
    units = activated.shape[1]
    found, count, at = np.empty((4, 1 + concepts.shape[1]), np.int64), 0, 0
    while at < len(maps):
        image, unit = maps[at] // units, maps[at] % units
        begin = at
        while at < len(maps) and maps[at] == maps[begin]:
            for plane in range(planes.shape[1]):
                own[planes[image, plane, places[at] - image * pixels]] += 1
            at += 1
        activated[image, unit] = own[0] = at - begin
        if count + concepts.shape[1] > found.shape[1]:
            longer = np.empty((4, 2 * found.shape[1]), np.int64)
            longer[:, :count] = found[:, :count]
            found = longer
        for place in range(concepts.shape[1]):
            number = local[image, place]
            if number >= 0 and own[number]:
                found[0, count], found[1, count] = image, unit
                found[2, count], found[3, count] = concepts[image, place], own[number]
                count += 1
        own[:] = 0
    return found[0, :count].copy(), found[1, :count].copy(), found[2, :count].copy(), found[3, :count].copy()
