"""What is said of a picture that an audit has never seen: whether it is like those that it has."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.quantify.novelty import Novelty


def likeness(found: Novelty | None) -> Sequence[str]:
    """A sentence or two; none for a picture that was looked at.

    Args:
        found: how far the picture is from its nearest one.
    """
    if found is None:
        return ()
    many = (
        f"{found.lonely} of {found.pictures} pictures, it among them, are at least as far from their nearest one "
        f"(p = {found.p:.3f})"
    )
    if not found.unlike:
        return (f"It is like the pictures that the audit looked at: {many}.",)
    return (f"It is unlike the pictures that the audit looked at: {many}.", "What is said here may not hold for it.")
