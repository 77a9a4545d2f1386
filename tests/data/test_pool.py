"""What may be learned from without labels is `train` and `unlabelled`, and nothing else."""

from __future__ import annotations

import pytest

from headfirst.data import ImageSet, unlabelled_pool
from headfirst.errors import DataError


def test_the_pool_of_the_digits_is_train_and_unlabelled_without_labels():
    digits = ImageSet.digits()
    pool = unlabelled_pool(digits)
    assert pool.ids == (*digits["train"].ids, *digits["unlabelled"].ids)
    assert (pool.labels == -1).all()
    assert not {*pool.ids} & {id_ for name in ("val", "test", "shift-uci") for id_ in digits[name].ids}
    assert len(unlabelled_pool(digits.only("train", "test"))) == len(digits["train"])


def test_there_must_be_something_to_learn_from():
    with pytest.raises(DataError, match="neither train nor unlabelled images"):
        unlabelled_pool(ImageSet.digits().only("test"))
