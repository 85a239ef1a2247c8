"""The best logical formula of up to three concepts for a unit, and a proof that there is no better one.

Compositional explanations (Mu and Andreas 2020, arXiv 2006.14032) label a unit with a formula of concepts, built from
the left: concept, then `and`, `or` or `and not` another concept, and so on. They search by beam; here the search is by
branch and bound over exact counts, so that what is found is the best, or the result says by how much at most it is not.

    IoU_{k,F} = I / (A + L - I) = I / (A + O)

I: pixels that unit k lights and F holds on; O: pixels that F holds on and k does not light, L = I + O; A: pixels that k
lights; all over the pictures D_F in which every category of F's concepts is annotated. Of equal IoU (equal as float64,
of integers divided once) the shorter formula is taken, then the first in the order of `FORMS`, then that of the lowest
concept numbers; so a formula of one concept is the unit's label of a dissection.
"""
