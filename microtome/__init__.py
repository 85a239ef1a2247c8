"""microtome: the science of an audit, importable without Prefect or storage.

Rooms follow the survey: `networks` and `datasets` are what is looked at, `quantify` is section 2, `visualize`
section 3, `disentangle` section 4, and `report` shows what came out.
"""

__version__ = "0.1.0"
