"""A generator that copies, one that knows the distribution, one that makes a single image: each is found out."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headfirst.data import ImageSet, ImageSplit
from headfirst.errors import DataError, InputError
from headfirst.generate import Generator
from headfirst.nn import PretrainedBackbone
from headfirst.study import GeneratorEvaluation, compare_scores, evaluate_generator, told_apart
from headfirst.study.generator_data import at_size, training_pool
from tiny import make_split

CLASSES = ("red", "green", "blue")


class Shuffler(nn.Module):
    """Shows one of its own images of the class that is asked for."""

    def __init__(self, split: ImageSplit) -> None:
        super().__init__()
        self.config, self.noise_dim = {}, 1
        images = torch.stack([torch.from_numpy(np.array(s)) for s in split.sources]).permute(0, 3, 1, 2) / 255
        self.images, self.of = nn.Parameter(images, requires_grad=False), torch.from_numpy(split.labels)

    def forward(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        u = 0.5 * (1 + torch.erf(noise[:, 0] / math.sqrt(2)))
        rows = []
        for i in range(len(noise)):
            mine = (self.of == labels[i]).nonzero().flatten() if labels is not None else torch.arange(len(self.of))
            rows.append(mine[int(u[i] * len(mine))])
        return self.images[torch.stack(rows)]


@pytest.fixture(scope="module")
def colours() -> ImageSet:
    splits = {
        name: make_split(name, n, seed=seed)
        for seed, (name, n) in enumerate([("train", 150), ("val", 12), ("test", 120)])
    }
    return ImageSet(name="colours", splits=splits, classes=CLASSES)


def shuffler(images: ImageSet, shown: ImageSplit, *, shares=(1 / 3, 1 / 3, 1 / 3), classes=CLASSES) -> Generator:
    return Generator(
        kind="shuffler",
        network=Shuffler(shown),
        classes=classes,
        shares=shares if classes else (),
        trained_on=training_pool(images).split.fingerprint,
        recipe="shuffles",
    )


def evaluated(images, shown, backbone, *, num=120, seed=0, **what) -> GeneratorEvaluation:
    return evaluate_generator(shuffler(images, shown, **what), images, backbone, num=num, seed=seed)


def test_copies_are_found_and_shown(colours: ImageSet, backbone: PretrainedBackbone):
    found = evaluated(colours, colours["train"], backbone)
    scores = found.scores
    assert scores.memorisation is not None
    assert scores.memorisation.verdict == "memorised"
    assert scores.memorisation.share > 0.99
    assert len(found.lookalikes) == 8
    for alike in found.lookalikes:
        assert alike.training_distance == 0 < alike.held_out_distance
        assert alike.picture == alike.training_picture != alike.held_out_picture
        assert alike.training.startswith("train/")
        assert alike.held_out.startswith("test/")
    assert scores.of_generated["frechet_corrected"].low == 0  # a distance alone does not see it


def test_a_second_sample_of_the_distribution_gets_what_is_expected(colours: ImageSet, backbone: PretrainedBackbone):
    fresh = make_split("fresh", 1200, seed=9)
    scores = evaluated(colours, fresh, backbone, num=240).scores
    assert scores.memorisation is not None
    assert scores.memorisation.verdict == "no sign of it"
    made, real = scores.of_generated, scores.of_real
    assert set(made) == set(real)
    for name in ("frechet_corrected", "kernel"):
        assert made[name].low == 0
        assert abs(made[name].value) < (made[name].high or 0)
    assert made["frechet"].value > made["frechet_corrected"].value
    for name in ("precision", "recall", "density", "coverage"):
        assert made[name].value == pytest.approx(made[name].expected, abs=0.12)
        assert real[name].value == pytest.approx(real[name].expected, abs=0.12)
    assert made["coverage"].expected != real["coverage"].expected  # 240 and 150 images stand there
    assert made["recognised"].value == 1
    assert made["recognised"].low == pytest.approx(0.025 ** (1 / 240))
    assert made["class_weights"].value < 3 * (made["class_weights"].expected or 0)
    assert [c.name for c in scores.by_class] == list(CLASSES)
    assert sum(c.generated for c in scores.by_class) == 240 == sum(c.recognised for c in scores.by_class)
    assert (scores.num_generated, scores.num_real, scores.num_reference, scores.size) == (240, 120, 150, 16)
    assert (scores.features, scores.backbone) == (backbone.fingerprint, backbone.name)


def test_one_image_again_and_again_has_finite_scores(colours: ImageSet, backbone: PretrainedBackbone):
    one = make_split("one", 3, seed=11).take([0])
    scores = evaluated(colours, one, backbone, shares=(1.0, 0.0, 0.0)).scores
    assert scores.repeats.pairs == 120 * 119 // 2
    assert scores.repeats.support == 1
    assert scores.of_generated["class_weights"].value == pytest.approx(2 / 3)
    assert scores.of_generated["recall"].value == 0
    for score in (*scores.of_generated.values(), *scores.of_real.values()):
        assert all(math.isfinite(v) for v in vars(score).values() if v is not None)
    assert scores.of_generated["frechet_corrected"].low > scores.of_real["frechet_corrected"].high


def test_distinct_images_do_not_repeat(colours: ImageSet, backbone: PretrainedBackbone):
    scores = evaluated(colours, make_split("fresh", 2000, seed=9), backbone, num=12).scores
    assert (scores.repeats.pairs, scores.repeats.support, scores.repeats.high) == (0, None, None)
    assert scores.repeats.low == pytest.approx(12 * 11 / 2 / -math.log(0.025))


def test_without_classes_and_without_the_training_images(colours: ImageSet, backbone: PretrainedBackbone):
    fresh = make_split("fresh", 300, seed=9)
    scores = evaluated(colours, fresh, backbone, num=40, classes=()).scores
    assert "recognised" not in scores.of_generated
    assert "class_weights" in scores.of_generated
    assert scores.memorisation is not None
    other = dataclasses.replace(shuffler(colours, fresh), trained_on="something else")
    found = evaluate_generator(other, colours, backbone, num=40)
    assert (found.scores.memorisation, found.lookalikes) == (None, ())
    assert "does not hold the images that the generator learned from" in found.scores.why_not
    test_alone = evaluate_generator(other, colours.only("test"), backbone, num=40).scores
    assert (test_alone.num_reference, test_alone.of_real) == (0, {})


def test_images_without_a_label_are_all_the_real_side(colours: ImageSet, backbone: PretrainedBackbone):
    plain = dataclasses.replace(colours["test"], name="unlabelled", labels=np.full(120, -1), classes=())
    pool = ImageSet(name="pool", splits={"unlabelled": plain}, classes=())
    generator = shuffler(colours, colours["train"], classes=())
    scores = evaluate_generator(generator, pool, backbone, num=40).scores
    assert (scores.split, scores.num_real, scores.memorisation) == ("unlabelled", 120, None)
    learned = dataclasses.replace(generator, trained_on=training_pool(pool).split.fingerprint)
    with pytest.raises(InputError, match="learned from all images of pool"):
        evaluate_generator(learned, pool, backbone, num=40)


def test_real_images_are_seen_at_the_generators_size(colours: ImageSet, backbone: PretrainedBackbone):
    small = at_size(make_split("fresh", 60, seed=9), 8)
    assert small.sources[0].shape == (8, 8, 3)
    large = evaluated(colours, make_split("fresh", 60, seed=9), backbone, num=40).scores
    found = evaluated(colours, small, backbone, num=40).scores
    assert (found.size, large.size) == (8, 16)
    assert found.real != large.real
    with pytest.raises(InputError, match=r"different real images .* at 8 pixels .* at 16 pixels"):
        compare_scores(found, large)


def test_comparison(colours: ImageSet, backbone: PretrainedBackbone):
    fresh = make_split("fresh", 1200, seed=9)
    dark = dataclasses.replace(fresh, sources=tuple((np.asarray(s) // 2) for s in fresh.sources))
    good, once_more, again = (evaluated(colours, fresh, backbone, seed=s).scores for s in (0, 0, 1))
    assert once_more == good
    assert again.of_generated != good.of_generated
    bad = evaluated(colours, dark, backbone).scores
    found = compare_scores(good, bad, ("ours", "theirs"))
    assert found.high < 0
    assert told_apart(bad).startswith("Made images can be told from real ones: Fréchet distance ")
    assert told_apart(good).startswith("Too few images to tell made ones from real ones: Fréchet distance ")
    assert found.sentence.startswith("ours is better than theirs: its Fréchet distance is lower by ")
    assert "from 120 and 120 generated and 120 real images" in found.sentence
    turned = compare_scores(bad, good, ("theirs", "ours"))
    assert (turned.value, turned.low, turned.high) == (-found.value, -found.high, -found.low)
    assert turned.sentence == found.sentence
    d = good.of_generated["frechet_corrected"].value - bad.of_generated["frechet_corrected"].value
    assert found.value == pytest.approx(d)
    same = compare_scores(good, again)
    assert same.low <= 0 <= same.high
    assert same.sentence.startswith("too few images to tell A from B")
    with pytest.raises(InputError, match="scores of the same images of one generator"):
        compare_scores(good, good)
    with pytest.raises(InputError, match="different features say nothing of each other"):
        compare_scores(good, dataclasses.replace(bad, features="another"))


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        ({"num": 9}, InputError, "num must be at least 10"),
        ({"split": "train"}, InputError, "'train' is learned from"),
        ({"split": "tset"}, DataError, "did you mean 'test'"),
    ],
)
def test_refusals(colours: ImageSet, backbone: PretrainedBackbone, ask, error, message):
    with pytest.raises(error, match=message):
        evaluate_generator(shuffler(colours, colours["train"]), colours, backbone, **ask)
    few = dataclasses.replace(colours, splits={**colours.splits, "test": colours["test"].take(range(9))})
    with pytest.raises(DataError, match="has 9 images, too few to measure"):
        evaluate_generator(shuffler(colours, colours["train"]), few, backbone)


def test_what_is_learned_from_is_nowhere_else(colours: ImageSet):
    leak = dataclasses.replace(
        colours["test"],
        sources=(colours["train"].sources[4], *colours["test"].sources[1:]),
    )
    pool = training_pool(dataclasses.replace(colours, splits={**colours.splits, "test": leak}))
    assert pool.left_out == ("train/4",)
    assert "train/4" not in pool.split.ids
    assert len(pool.split) == 149
    assert training_pool(colours).left_out == ()
    assert (training_pool(colours, with_classes=False).split.labels == -1).all()
