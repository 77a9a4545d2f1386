"""Permutations that are far apart: the answers of a jigsaw puzzle, from groups whose distance is proved.

Two permutations of a group differ in as many places as their quotient moves, so the least distance of a group is the
least number of points that one of its elements, other than the identity, moves. A group in which at most k points
stay has distance n - k; a sharply (k + 1)-transitive one has, with that distance, as many elements as any set of
permutations can have: n! / k! (Frankl & Deza, "On the maximum number of permutations with given maximal or minimal
distance", JCTA 1977, whether or not it is a group).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Int64

from headfirst.errors import InputError

_INFINITY = 8  # of the projective line over GF(8), whose points are 0 … 7 and this


def permutation_set(num_tiles: int, min_distance: int) -> Int64[np.ndarray, "m n"]:
    """The largest group of permutations of which any two differ in at least `min_distance` places.

    | tiles | distance | permutations | group |
    |---|---|---|---|
    | 4 | 4 | 4 | GF(4), + |
    | 4 | 3 | 12 | AGL(1, 4) = A4 |
    | 4 | 2 or 1 | 24 | S4 |
    | 9 | 9 | 9 | GF(9), + |
    | 9 | 8 | 72 | AGL(1, 9) |
    | 9 | 7 | 504 | PSL(2, 8) |
    | 9 | 6, 5 or 4 | 1,512 | PΓL(2, 8) |
    | 9 | 3 | 181,440 | A9 |
    | 9 | 2 or 1 | 362,880 | S9 |

    Between PΓL(2, 8) and A9 there is no group of degree 9 without a 3-cycle that is larger.

    Args:
        num_tiles: 4 (2x2) or 9 (3x3).
        min_distance: Hamming distance, from 1 to `num_tiles`.

    Returns:
        int64, a permutation of 0 … num_tiles - 1 in each row, in lexicographic order (the identity first).

    Raises:
        InputError: another number of tiles or an impossible distance.

    >>> len(permutation_set(9, 8)), len(permutation_set(4, 3))
    (72, 12)
    """
    if num_tiles not in (4, 9):
        raise InputError(f"a jigsaw has 4 tiles (2x2) or 9 (3x3), got {num_tiles}")
    if not 1 <= min_distance <= num_tiles:
        raise InputError(
            f"{num_tiles} tiles can differ in 1 to {num_tiles} places, got a min_distance of {min_distance}"
        )
    rows = sorted(_FOUR[min_distance]() if num_tiles == 4 else _NINE[min_distance]())
    return np.array(rows, dtype=np.int64)


Permutations = Iterable[tuple[int, ...]]


def _translations(size: int, add: Callable[[int, int], int]) -> Permutations:
    return (tuple(add(x, b) for x in range(size)) for b in range(size))


def _affine(size: int, add: Callable[[int, int], int], times: Callable[[int, int], int]) -> Permutations:
    """x → a x + b, a ≠ 0: sharply 2-transitive."""
    return (tuple(add(times(a, x), b) for x in range(size)) for a in range(1, size) for b in range(size))


def _symmetric(size: int) -> Permutations:
    return itertools.permutations(range(size))


def _alternating(size: int) -> Permutations:
    return (p for p in itertools.permutations(range(size)) if _even(p))


def _even(p: tuple[int, ...]) -> bool:
    return sum(p[i] > p[j] for i in range(len(p)) for j in range(i + 1, len(p))) % 2 == 0


def _projective() -> set[tuple[int, ...]]:
    """x → (a x + b) / (c x + d), a d ≠ b c, on the projective line over GF(8): sharply 3-transitive."""
    inverse = {x: y for x in range(1, 8) for y in range(1, 8) if _times_8(x, y) == 1}

    def image(a: int, b: int, c: int, d: int, x: int) -> int:
        top, bottom = (a, c) if x == _INFINITY else (_times_8(a, x) ^ b, _times_8(c, x) ^ d)
        return _INFINITY if bottom == 0 else _times_8(top, inverse[bottom])

    return {
        tuple(image(a, b, c, d, x) for x in range(9))
        for a, b, c, d in itertools.product(range(8), repeat=4)
        if _times_8(a, d) != _times_8(b, c)
    }


def _semilinear() -> Permutations:
    """The same, after a field automorphism x → x², x⁴ or x."""
    square = (*(_times_8(x, x) for x in range(8)), _INFINITY)
    for p in _projective():
        twice = tuple(p[square[x]] for x in range(9))
        yield from (p, twice, tuple(twice[square[x]] for x in range(9)))


def _times_4(x: int, y: int) -> int:
    return _polynomial_product(x, y, modulus=0b111, degree=2)  # t² + t + 1 over GF(2)


def _times_8(x: int, y: int) -> int:
    return _polynomial_product(x, y, modulus=0b1011, degree=3)  # t³ + t + 1 over GF(2)


def _polynomial_product(x: int, y: int, *, modulus: int, degree: int) -> int:
    product = 0
    for i in range(degree):
        product ^= (x << i) * (y >> i & 1)
    for i in range(2 * degree - 2, degree - 1, -1):
        product ^= (modulus << (i - degree)) * (product >> i & 1)
    return product


def _plus_9(x: int, y: int) -> int:
    return (x // 3 + y // 3) % 3 * 3 + (x % 3 + y % 3) % 3


def _times_9(x: int, y: int) -> int:
    """a + b i is 3 a + b, with i² = -1 over GF(3)."""
    (a, b), (c, d) = divmod(x, 3), divmod(y, 3)
    return (a * c - b * d) % 3 * 3 + (a * d + b * c) % 3


def _xor(x: int, y: int) -> int:
    return x ^ y


_FOUR: dict[int, Callable[[], Permutations]] = {
    4: lambda: _translations(4, _xor),
    3: lambda: _affine(4, _xor, _times_4),
    2: lambda: _symmetric(4),
    1: lambda: _symmetric(4),
}
_NINE: dict[int, Callable[[], Permutations]] = {
    9: lambda: _translations(9, _plus_9),
    8: lambda: _affine(9, _plus_9, _times_9),
    7: _projective,
    **dict.fromkeys((6, 5, 4), _semilinear),
    3: lambda: _alternating(9),
    **dict.fromkeys((2, 1), lambda: _symmetric(9)),
}
