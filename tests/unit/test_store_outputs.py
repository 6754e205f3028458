from __future__ import annotations

import numpy as np
import pytest
from socbench.store.outputs import _channels_first

CARD = {"name": "picture", "shape": [1, 3, 2, 4], "layout": "NCHW"}


def test_a_picture_with_its_channels_last_is_turned_to_the_cards_order() -> None:
    pictures = np.arange(48.0).reshape(2, 3, 2, 4)
    stored = pictures.transpose(0, 2, 3, 1).ravel()
    np.testing.assert_array_equal(_channels_first(stored, [1, 2, 4, 3], CARD), pictures.ravel())


@pytest.mark.parametrize(
    ("shape", "card"),
    [
        ([1, 3, 2, 4], CARD),
        ([3, 2, 4], CARD),
        ([1, 2, 4, 3], {**CARD, "layout": None}),
        ([1, 4, 2, 3], CARD),
        (None, CARD),
        ([1, 2, 4, 3], {}),
    ],
)
def test_what_is_in_order_or_of_another_shape_stays_as_it_is(shape: list[int] | None, card: dict[str, object]) -> None:
    values = np.arange(24.0)
    assert _channels_first(values, shape, card) is values
