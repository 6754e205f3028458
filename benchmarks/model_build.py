"""What making the variants of a model costs beside the converters and quantisers, and what a second build costs.

``python benchmarks/model_build.py [MODEL]`` builds every variant of a model (default: efficientnet_lite0) into an
empty cache, as ``socbench models build`` does, from weights and data that are there already. The tools' own time is
that of the same calls one after the other in one process, without hashing, checking, reading back or keeping anything.
Both in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from socbench.cache import cache_folder
from socbench.errors import SocbenchError
from socbench.models import data
from socbench.models.cards import Card, load_card
from socbench.models.inputs import arranged, with_layouts
from socbench.models.inspect import inspect_file
from socbench.models.sources import own_file
from socbench.models.variants import build, variants_of
from socbench.records import Variant

# Runs in a process of its own: the imports are part of what the tools take, once.
BARE = """
import importlib, json, sys, time
begin = time.perf_counter()
for call in json.load(sys.stdin):
    module = importlib.import_module(f"socbench.models.convert.{call.pop('form')}")
    module.make(**call)
print(json.dumps(time.perf_counter() - begin), file=sys.stderr)
"""


def made(card: Card) -> list[Variant]:
    """Return the variants that a converter makes in this environment, so neither ncnn, MNN nor the card's own files."""
    return [
        item
        for item in variants_of(card)
        if item.format in ("onnx", "tflite", "openvino")
        and not (item.format in card.files and item.precision == card.files[item.format].precision and not item.recipe)
    ]


def calls(card: Card, folder: Path) -> list[dict[str, object]]:
    """Return the arguments of the same converters, their calibration data written beforehand."""
    pictures = data.calibration(card)
    assert pictures is not None
    found: list[dict[str, object]] = []
    targets: dict[str, str] = {}
    for variant in made(card):
        recipe = f"-{variant.recipe}" if variant.recipe else ""
        form = "onnx" if variant.format == "openvino" else variant.format
        source = str(own_file(card, form))
        if variant.format == "openvino" and variant.precision == "int8":
            source = targets[f"onnx-int8{recipe}"]
        ending = {"onnx": ".onnx", "tflite": ".tflite", "openvino": ".xml"}[variant.format]
        target = str(folder / f"{variant.variant}{ending}")
        targets[variant.variant] = target
        call: dict[str, object] = {"form": variant.format, "source": source, "target": target}
        call |= {"precision": variant.precision, "recipe": variant.recipe}
        if variant.precision == "int8" and variant.format != "openvino":
            (spec,) = with_layouts(card, inspect_file(Path(source)).inputs)
            path = folder / f"{variant.format}.npy"
            np.save(path, arranged(pictures.inputs, card.inputs[0], spec))
            call |= {"calibration": str(path), "input": spec.name}
        found.append(call)
    return found


def bare_s(card: Card) -> float:
    """Return how long the tools take in one process."""
    with tempfile.TemporaryDirectory() as folder:
        given = json.dumps(calls(card, Path(folder)))
        done = subprocess.run([sys.executable, "-c", BARE], input=given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        return float(done.stderr.strip().splitlines()[-1])


def build_s(card: Card) -> float:
    """Return how long socbench takes for what is not in the cache."""
    begin = time.perf_counter()
    for variant in made(card):
        try:
            build(card, variant)
        except SocbenchError as problem:
            raise SystemExit(str(problem)) from problem
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="efficientnet_lite0")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    card = load_card(given.model)
    packages = cache_folder("packages")
    bare, first, second = [], [], []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SOCBENCH_CACHE"] = folder
            for kind in ("packages", "weights", "converted", "prepared"):
                if (packages.parent / kind).is_dir():
                    (Path(folder) / kind).symlink_to(packages.parent / kind)
            data.calibration(card)
            bare.append(bare_s(card))
            first.append(build_s(card))
            second.append(build_s(card))
    ratio = statistics.median(one / two for one, two in zip(first, bare, strict=True))
    print(f"{given.model}: {len(made(card))} variants, {given.rounds} rounds, medians")
    print(f"converters and quantisers alone  {statistics.median(bare):7.2f} s")
    print(f"socbench models build            {statistics.median(first):7.2f} s  ({ratio:.2f} x)")
    print(f"a second build                   {statistics.median(second):7.3f} s")


if __name__ == "__main__":
    main()
