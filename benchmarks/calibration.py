"""How often 95 % intervals hold the truth in worlds where it is known: a JSON line per interval and number of pictures.

    python benchmarks/calibration.py [--samples N]

`coverage` is the mean over the worlds or the grid of truths, `worst` that of the worst one, and `world` its name. The
counts of a dissection are judged by their mean over samples, as an interval of redrawn pictures can promise no more;
`holds_truth` is how often they hold the number of units that are detectors in the world. The worlds are those of the
test (tests/calibration.py, tests/test_calibration.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.calibration import IMAGES, cases, counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000)
    samples = parser.parse_args().samples
    found: dict[tuple[str, int], list[tuple[float, str]]] = defaultdict(list)
    for case in cases():
        found[case.interval, case.images].append((round(case.coverage(samples), 4), case.world))
    for (interval, images), pairs in found.items():
        worst, world = min(pairs, key=lambda pair: pair[0])
        mean = round(sum(value for value, _ in pairs) / len(pairs), 4)
        line = {"interval": interval, "images": images, "coverage": mean, "worst": worst, "world": world}
        print(json.dumps(line | {"worlds": len(pairs), "samples": samples}), flush=True)
    for images in IMAGES:
        for count in counted(images, max(samples // 4, 10)):
            line = {
                "interval": count.name,
                "images": images,
                "coverage": count.coverage,
                "mean": round(count.values.mean(), 4),
            }
            line |= {"truth": count.truth, "holds_truth": count.holding(count.truth)} if count.is_count else {}
            print(json.dumps(line | {"samples": len(count.values)}), flush=True)


if __name__ == "__main__":
    main()
