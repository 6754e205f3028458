"""Compares outputs with the reference's on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from socbench.records import Fidelity

Array = npt.NDArray[np.generic]


def real_values(
    raw: bytes | memoryview, dtype: str, scale: float | None = None, zero_point: int | None = None
) -> npt.NDArray[np.float64]:
    """Return raw little-endian output bytes as real numbers; quantised ones by ``scale * (q - zero_point)``.

    ValueError when ``dtype`` is unknown or the bytes are no whole number of elements.
    """
    if dtype == "bfloat16":
        widened = np.frombuffer(raw, "<u2").astype("<u4") << np.uint32(16)
        return widened.view("<f4").astype(np.float64)
    try:
        kind = np.dtype(dtype).newbyteorder("<")
    except TypeError as error:
        raise ValueError(f"unknown type {dtype[:40]!r}") from error
    if kind.kind not in "fiub":
        raise ValueError(f"type {dtype[:40]!r} holds no numbers")
    values = np.frombuffer(raw, kind).astype(np.float64)
    return values if scale is None else scale * (values - (zero_point or 0))


def compare_outputs(
    measured: Sequence[npt.NDArray[np.float64]],
    reference: Sequence[npt.NDArray[np.float64]],
    count: int,
    tolerance: Mapping[str, float] | None = None,
    named: str = "reference",
) -> Fidelity:
    """Compare all output tensors on ``count`` inputs; each array holds ``count`` outputs one after the other.

    The worst over inputs and tensors: the smallest ``cosine``, the largest ``max_abs`` and ``max_relative``
    (max|y - r| / max|r|). ``top1_agreement``: share of inputs whose largest element of the first tensor is the same
    (``None`` where it has a single element). ``constant``: the first tensor is one number throughout, while the
    reference's is not. Not finite, constant, or of another size: never within tolerance. ``within_tolerance`` is
    ``None`` where no tolerance is given.
    """
    if any(not np.isfinite(tensor).all() for tensor in measured):
        return Fidelity(None, None, None, None, False, finite=False, reference=named)
    first, expected = measured[0], reference[0]
    constant = bool(first.size > 1 and np.ptp(first) == 0 and np.ptp(expected) != 0)
    sizes = [tensor.size for tensor in measured] == [tensor.size for tensor in reference]
    if count < 1 or not sizes or any(tensor.size % count for tensor in measured):
        return Fidelity(None, None, None, None, False, constant=constant, reference=named)
    pairs = [
        (one.reshape(count, -1)[i], two.reshape(count, -1)[i])
        for one, two in zip(measured, reference, strict=True)
        for i in range(count)
        if one.size
    ]
    found = Fidelity(
        cosine=min((cosine(one, two) for one, two in pairs), default=None),
        max_abs=max((_largest(one - two) for one, two in pairs), default=None),
        max_relative=max((_max_relative(one, two) for one, two in pairs), default=None),
        top1_agreement=_top1(first.reshape(count, -1), expected.reshape(count, -1)),
        within_tolerance=None,
        constant=constant,
        reference=named,
    )
    return judge(found, tolerance)


def judge(found: Fidelity, tolerance: Mapping[str, float | None] | None) -> Fidelity:
    """Return ``found`` with ``within_tolerance``: every limit of the card is kept (``None`` without limits)."""
    within: bool | None = None
    if constant_or_broken(found):
        within = False
    elif tolerance:
        limits = {name: limit for name, limit in tolerance.items() if limit is not None}
        within = all(_keeps(found, name, float(limit)) for name, limit in limits.items())
    return Fidelity(**{**found.__dict__, "within_tolerance": within})


def constant_or_broken(found: Fidelity) -> bool:
    """Tell whether outputs are void whatever the tolerance."""
    return not found.finite or found.constant or found.cosine is None


def _keeps(found: Fidelity, name: str, limit: float) -> bool:
    value = getattr(found, name, None)
    if value is None:
        return name == "top1_agreement"
    return bool(value >= limit if name in ("cosine", "top1_agreement") else value <= limit)


def worst(found: Sequence[Fidelity]) -> Fidelity | None:
    """Return the worst over repetitions and stages, member by member; ``None`` of none."""
    if not found:
        return None

    def every(name: str) -> list[float]:
        return [getattr(one, name) for one in found if getattr(one, name) is not None]

    verdicts = [one.within_tolerance for one in found]
    return Fidelity(
        cosine=min(every("cosine"), default=None),
        max_abs=max(every("max_abs"), default=None),
        max_relative=max(every("max_relative"), default=None),
        top1_agreement=min(every("top1_agreement"), default=None),
        within_tolerance=False if False in verdicts else None if None in verdicts else True,
        finite=all(one.finite for one in found),
        constant=any(one.constant for one in found),
        reference=found[0].reference,
    )


def cosine(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> float:
    """Return the cosine of the angle between two vectors; 1 for two null vectors, 0 for one."""
    sizes = [_largest(vector) for vector in (one, two)]
    if 0.0 in sizes:
        return 1.0 if sizes == [0.0, 0.0] else 0.0
    # Where squares would overflow or vanish, vectors are divided by their largest element first.
    a, b = (v if 1e-60 < size < 1e60 else v / size for v, size in zip((one, two), sizes, strict=True))
    value = float(np.dot(a, b)) / float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    return max(-1.0, min(1.0, value))


def _largest(values: npt.NDArray[np.float64]) -> float:
    """Return the largest absolute value (without an array of absolute values: outputs can be large)."""
    return max(float(np.max(values)), -float(np.min(values)))


def _max_relative(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> float:
    largest, difference = _largest(two), _largest(one - two)
    if largest == 0:
        return 0.0 if difference == 0 else float("inf")
    return difference / largest


def _top1(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> float | None:
    return float(np.mean(one.argmax(1) == two.argmax(1))) if one.shape[1] > 1 else None
