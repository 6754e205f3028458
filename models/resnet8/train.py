"""Trains ResNet-8 on Fashion-MNIST and writes everything in this folder but the card.

The data is the Debian package ``dataset-fashion-mnist`` (0.0~git20200523.55506a9-1)::

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb unpacked
    pip install torch==2.13.0 onnx==1.23.2 onnxscript litert-torch==0.10.0
    PYTHONPATH=models python models/resnet8/train.py --data unpacked/usr/share/datasets/fashion-mnist \\
        --out models/resnet8

The last line, run in the root of the repository, trained the weights that are committed (seed 0, 2 threads, ten epochs:
92.11 % of the test pictures); the files were then written from the saved weights by the same script with ``--weights``.
A run on another machine gives slightly other weights: the order of floating-point sums is not fixed. Nothing here is
needed to *use* the network.
"""

from __future__ import annotations

import argparse
import gzip
import struct
import time
from pathlib import Path

import numpy as np
import torch
from exporting import ConvBN, fold_norms, write_onnx, write_tflite
from torch import Tensor, nn
from torch.nn import functional as F

LABELS = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MEAN, STD = 0.286, 0.353  # of the pixels of the 60 000 training pictures, scaled to 0..1
EVALUATION, CALIBRATION = 2000, 200  # the first of the test pictures, the first of the training pictures
BATCH = 128


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    zero, kind, rank = struct.unpack_from(">HBB", raw)
    if zero != 0 or kind != 0x08:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    shape = struct.unpack_from(f">{rank}I", raw, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write unsigned bytes as a gzipped IDX file, the same bytes each time (no date, no name in the header)."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), 9, mtime=0))


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a short cut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = ConvBN(inputs, outputs, 3, stride)
        self.second = ConvBN(outputs, outputs, 3)
        self.short: nn.Module = nn.Identity() if stride == 1 else ConvBN(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        return F.relu(self.short(x) + self.second(F.relu(self.first(x))))


class ResNet8(nn.Module):
    """The image-classification network of MLPerf Tiny, for one channel."""

    def __init__(self, width: int = 16, classes: int = len(LABELS)) -> None:
        super().__init__()
        self.stem = ConvBN(1, width, 3)
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits."""
        x = self.blocks(F.relu(self.stem(image)))
        y: Tensor = self.head(self.pool(x).flatten(1))
        return y


def prepare(pictures: np.ndarray) -> Tensor:
    """Grey pictures (n, 28, 28) of bytes to the network's input (n, 1, 28, 28)."""
    return torch.from_numpy(((pictures.astype(np.float32) / 255 - MEAN) / STD)[:, None])


def augment(x: Tensor) -> Tensor:
    """Mirror half of the pictures and move the batch by up to two pixels."""
    x = torch.where((torch.rand(len(x)) < 0.5).view(-1, 1, 1, 1), x.flip(3), x)
    left, top = torch.randint(0, 5, (2,)).tolist()
    return F.pad(x, (2, 2, 2, 2), value=-MEAN / STD)[:, :, top : top + 28, left : left + 28]


@torch.no_grad()
def top1(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the fraction of ``x`` that ``network`` answers with ``y``."""
    network.eval()
    answers = torch.cat([network(part).argmax(1) for part in x.split(500)])
    return (answers == y).float().mean().item()


def train(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, epochs: int) -> ResNet8:
    """Train from random weights; print the accuracy after each epoch."""
    network = ResNet8().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.15, total_steps=epochs * steps, pct_start=0.2)
    started = time.monotonic()
    for epoch in range(epochs):
        network.train()
        for part in torch.randperm(len(x))[: steps * BATCH].split(BATCH):
            batch = augment(x[part]).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(network(batch), y[part], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        score = top1(network, x_test, y_test)
        print(f"epoch {epoch + 1}: {time.monotonic() - started:.0f} s, test top-1 {score:.4f}", flush=True)
    return network.eval()


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description="Trains ResNet-8 on Fashion-MNIST.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the four *-ubyte.gz files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="export these weights (a state dict) instead of training")
    parser.add_argument("--save-weights", type=Path, help="keep the trained weights here as well")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)

    train_x, train_y = (read_idx(options.data / f"train-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    test_x, test_y = (read_idx(options.data / f"t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    x_test, y_test = prepare(test_x), torch.from_numpy(test_y).long()
    if options.weights:
        network = ResNet8().eval()
        network.load_state_dict(torch.load(options.weights, weights_only=True))
    else:
        network = train(prepare(train_x), torch.from_numpy(train_y).long(), x_test, y_test, options.epochs)
        if options.save_weights:
            torch.save(network.state_dict(), options.save_weights)

    network = network.to(memory_format=torch.contiguous_format)
    before = network(x_test[:500])
    fold_norms(network)
    change = (network(x_test[:500]) - before).abs().max().item()
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{parameters} parameters, test top-1 {top1(network, x_test, y_test):.4f}, folding changed {change:.1e}")

    data = options.out / "data"
    data.mkdir(parents=True, exist_ok=True)
    write_idx(data / "evaluation-images-idx3-ubyte.gz", test_x[:EVALUATION])
    write_idx(data / "evaluation-labels-idx1-ubyte.gz", test_y[:EVALUATION])
    write_idx(data / "calibration-images-idx3-ubyte.gz", train_x[:CALIBRATION])
    write_idx(data / "calibration-labels-idx1-ubyte.gz", train_y[:CALIBRATION])
    (options.out / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    write_onnx(network, (1, 1, 28, 28), options.out / "resnet8-fp32.onnx", "resnet8")
    write_tflite(network, (1, 28, 28, 1), options.out / "resnet8-fp32.tflite")


if __name__ == "__main__":
    main()
