"""Pictures whose sources differ, as arrays that streams are made of: emoji in drawing styles, letters in fonts.

    python benchmarks/pictures.py --emoji emoji32.npz --letters glyphs.npz

``emoji32.npz`` holds ``images`` (N, H, W, 3), ``group``, ``style`` and ``emoji`` of each (from the packages
``@iconify-json/*``, drawn by ``resvg-py``, with the groups of Unicode's ``emoji-test.txt``); ``glyphs.npz`` holds
``images`` (N, H, W), ``labels`` and ``fonts`` (from Debian's ``fonts-aenigma``). Written are ``data/emoji`` and
``data/letters``: ``x.npy``, ``y.npy``, ``domain.npy`` and ``source.npy``. A domain is a style, or a tenth of the fonts;
a source is what must lie on one side of a split: an emoji, which is almost the same in every style, or a font.

``python -m bayesdual compare --config configs/compare_pictures.yaml`` then compares methods on them, and on Elec2.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

DOMAINS = 10  # that fonts are shared out over, in the order of their names


def emoji(held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a stream, by name."""
    return {"x": held["images"], "y": held["group"], "domain": held["style"], "source": held["emoji"]}


def letters(held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a stream, by name."""
    fonts, which = np.unique(held["fonts"], return_inverse=True)
    tenth = which * DOMAINS // len(fonts)
    return {"x": held["images"], "y": held["labels"], "domain": tenth, "source": held["fonts"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--emoji", type=Path, metavar="NPZ")
    parser.add_argument("--letters", type=Path, metavar="NPZ")
    given = parser.parse_args()
    for path, folder, arrays_of in (
        (given.emoji, Path("data/emoji"), emoji),
        (given.letters, Path("data/letters"), letters),
    ):
        if path is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with np.load(path, allow_pickle=False) as held:
                for name, array in arrays_of(dict(held)).items():
                    np.save(folder / f"{name}.npy", array, allow_pickle=False)
            print(folder)


if __name__ == "__main__":
    main()
