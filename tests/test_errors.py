"""Messages that point at the fault."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from purejaxrl_ext.errors import check_hashable


@dataclass(frozen=True)
class Record:
    inner: Any = 1
    other: Any = 2


class Pair(NamedTuple):
    left: Any
    right: Any = 0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1], r"network=\[1\] is not allowed.*a tuple for a list"),
        (Record(inner=Record(other={"a": 1})), r"network\.inner\.other=\{'a': 1\}"),
        (Record(other=Pair(1, (2, np.zeros(3)))), r"network\.other\.right\[1\]=array"),
    ],
)
def test_what_cannot_be_hashed_is_named(value, words):
    with pytest.raises(ValueError, match=words):
        check_hashable("network", value)


def test_what_can_be_hashed():
    check_hashable("network", Record(Pair(1, (2, "x"))))
