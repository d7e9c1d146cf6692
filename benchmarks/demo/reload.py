"""Load the saved network in a process of its own and test it; nothing of BMRS is needed for that."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.demo.data import load_images
from benchmarks.demo.network import load_network


def main() -> None:
    """Print the number of test images that the network in a file gets right."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo.reload", description=__doc__)
    parser.add_argument("network", type=Path, help="the .safetensors file")
    parser.add_argument("--data", required=True, help="as for the demonstration")
    options = parser.parse_args()
    data = load_images(options.data, download_to=options.network.parent)
    with torch.no_grad():
        answers = torch.cat(
            [load_network(options.network)(images) for images in data.test_images.split(1000)]
        )
    if "bmrs_torch" in sys.modules:
        raise RuntimeError("the saved network must not need bmrs_torch, but it was imported")
    print(int((answers.argmax(1) == data.test_labels).sum()))


if __name__ == "__main__":
    main()
