"""Dictionaries: other directions of a layer's channel space than its units, and how much of them is no accident.

`directions` is what a fitted dictionary is, and how maps are read along it; `rotation`, `nmf` and `autoencoder` fit one
each; `matching` says how far two of them agree, and how far several initialisations do. None of them sees an
annotation.
"""
