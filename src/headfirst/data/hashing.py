"""Content hashes: what an image is, whatever it is called and whenever it was written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np


def hash_bytes(data: bytes) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_array(array: np.ndarray) -> str:
    """sha256 of an array's type, shape and values, hexadecimal."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def hash_number(text: str) -> int:
    """A 64-bit number for a name, to key random draws with."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")
