"""TensorRT and CUDA on a machine with an NVIDIA GPU (`make test-gpu`)."""

from __future__ import annotations

import numpy as np
import pytest
from socbench.environments.catalogue import catalogue
from socbench.environments.install import python_of

pytestmark = pytest.mark.gpu

X = np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)


@pytest.mark.parametrize("name", ["tensorrt-rtx", "tensorrt"])
def test_tensorrt_computes_the_answer_and_finds_its_engine_the_second_time(place, tiny, tmp_path, name) -> None:
    if name == "tensorrt" and python_of(catalogue()[name]) is None:
        name = "tensorrt-rtx"  # its libraries come from NVIDIA's own index and cannot be had everywhere
    here = place(name)
    model = tiny.write_onnx(tmp_path / "m.onnx")
    first, second = (here.adapter("tensorrt", "gpu:cuda", model, inputs={"x": X}) for _ in range(2))
    for answer in (first, second):
        np.testing.assert_allclose(answer["arrays"][0], tiny.chain(X, 4, 2), rtol=1e-3)
        assert answer["described"]["delegation"] == "full"
        assert answer["described"]["emulated"] is False
        assert answer["described"]["precision_effective"] == "fp32"
        assert answer["described"]["details"]["cuda_event_ns"] > 0
    assert first["described"]["details"]["engine_built"] is True
    assert second["described"]["details"]["engine_built"] is False


def test_onnxruntime_computes_on_cuda(place, tiny, tmp_path) -> None:
    model = tiny.write_onnx(tmp_path / "m.onnx")
    answer = place("onnxruntime-gpu").adapter("onnxruntime", "gpu:cuda", model, inputs={"x": X})
    np.testing.assert_allclose(answer["arrays"][0], tiny.chain(X, 4, 2), rtol=1e-3)
    assert (answer["described"]["delegation"], answer["described"]["nodes_delegated"]) == ("full", 2)
