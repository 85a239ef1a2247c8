"""Pages of single units: what every stage that looked at a unit tells of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from microtome.report import views


def unit_pages(layers: Sequence[views.Layer], told: Sequence[views.Told]) -> list[views.UnitPage]:
    """A page for every unit that was dissected, or that any other stage tells something of.

    Args:
        layers: that were dissected.
        told: what each stage tells, in the order in which pages show it.
    """
    cards = {views.UnitKey(layer.name, card.number): (layer.page, card) for layer in layers for card in layer.units}
    keys = sorted(dict.fromkeys([*cards, *(key for some in told for key in some)]), key=_order(layers))
    pages = []
    for _, group in groupby(keys, key=lambda key: key.layer):
        row = list(group)
        for place, key in enumerate(row):
            previous = row[place - 1] if place else None
            following = row[place + 1] if place + 1 < len(row) else None
            sections = [section for some in told for section in some.get(key, ())]
            page, card = cards.get(key, ("", None))
            pages.append(
                views.UnitPage(key, card, page, _headline(card), _figures(card), sections, previous, following)
            )
    return pages


def _order(layers: Sequence[views.Layer]):  # type: ignore[no-untyped-def]
    place = {layer.name: number for number, layer in enumerate(layers)}
    return lambda key: (place.get(key.layer, len(place)), key.layer, key.number)


def _headline(card: views.Unit | None) -> str:
    if card is None:
        return "Not dissected in this audit: what follows is what other stages found of it."
    if card.reason:
        return f"This unit is {card.reason}."
    if not card.concept:
        return "What it lights meets nothing that is annotated. Its pictures below show what they have in common."
    further = "".join(f" {told}" for told in (card.besides and f"{card.besides}.", card.causal) if told)
    iou = card.iou + (f" {card.interval}" if card.interval else "")
    measured = f"Its IoU with {card.concept} is {iou}"
    return {
        "below the limit": card.instead,
        "detector": f"{measured}. It was not tested against chance.",
        "confirmed detector": f"{measured}. The label holds on held-out pictures, too, and shuffled annotations do "
        f"not reach it{'; but ' + card.doubt if card.doubt else ''}.",
        "detector, not confirmed": f"{measured}, but it is not confirmed: "
        f"{card.doubt or 'the label does not hold on other pictures, or against chance'}.",
    }[card.state] + further


def _figures(card: views.Unit | None) -> views.Figures:
    """What its IoU, which the headline says, is to be read beside."""
    return views.Figures(tuple(card.facts) if card and not card.reason else ())
