"""Writes the golden values beside this file; it needs NumPy alone."""

import json
from pathlib import Path

import numpy as np

from tests.golden_values.cases import compute, labels
from tests.golden_values.inputs import INPUTS

PATH = Path(__file__).parent / "golden.json"


def plain(tree):
    if isinstance(tree, dict):
        return {name: plain(value) for name, value in tree.items()}
    return np.asarray(tree).tolist()


def main():
    cases = ",\n".join(json.dumps({**label, **plain(compute(label))}) for label in labels())
    PATH.write_text(f'{{"inputs": {json.dumps(INPUTS)},\n"cases": [\n{cases}\n]}}\n')


if __name__ == "__main__":
    main()
