"""Zero-shot: the text matrix by hand, and every way a list of names can be wrong."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from headfirst.adapt import TEMPLATE_SETS, ZeroShot, on_backbone, read_lines
from headfirst.artefact import load_model, save_model
from headfirst.data import prepare
from headfirst.errors import DataError, InputError
from headfirst.features import embed
from headfirst.nn import DualEncoder, load_dual_encoder

NAMES = ("red", "green", "blue")
FAMILIES = ["clip", "siglip", "chinese_clip"]


@pytest.fixture(params=FAMILIES)
def encoder(request, checkpoints) -> DualEncoder:
    return load_dual_encoder(checkpoints(request.param))


@pytest.fixture
def clip(checkpoints) -> DualEncoder:
    return load_dual_encoder(checkpoints("clip"))


def test_the_text_matrix_is_the_direction_of_the_mean_of_directions(encoder):
    templates = ("a photo of a {} thing", "the {} cat", "a {} dog .")
    model = ZeroShot(NAMES, templates).fit(encoder)
    for k, name in enumerate(NAMES):
        one_by_one = torch.stack([F.normalize(encoder.text.embed([t.format(name)])[0], dim=0) for t in templates])
        torch.testing.assert_close(model.directions[k], F.normalize(one_by_one.mean(dim=0), dim=0), rtol=0, atol=1e-6)
    # averaging raw embeddings, or not scaling again, gives something else
    raw = torch.stack([encoder.text.embed([t.format("red")])[0] for t in templates]).mean(dim=0)
    assert (F.normalize(raw, dim=0) - model.directions[0]).abs().max() > 1e-4


def test_logits_carry_the_scale_once_and_the_bias_of_sigmoid_models(encoder):
    model = ZeroShot(NAMES).fit(encoder)
    values = torch.randn(5, encoder.embed_dim, generator=torch.Generator().manual_seed(0))
    cosines = torch.stack([F.cosine_similarity(values, direction[None]) for direction in model.directions], dim=1)
    scale = encoder.log_logit_scale.exp().item()
    bias = 0.0 if encoder.logit_bias is None else encoder.logit_bias.item()
    torch.testing.assert_close(model.similarities(values), cosines, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.logits(values), scale * cosines + bias, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.similarities(7 * values), cosines, rtol=0, atol=1e-6)  # norms do not matter
    assert model.kind == encoder.kind
    sums = model.probabilities(values).sum(dim=1)
    ones = torch.ones(5, dtype=torch.float64)
    assert torch.allclose(sums, ones) == (encoder.kind == "softmax")


def test_a_duplicate_template_changes_nothing_and_names_may_have_underscores(clip):
    once = ZeroShot(NAMES, ("a {} cat", "the {} dog")).fit(clip)
    twice = ZeroShot(NAMES, ("a {} cat", "the {} dog", "a {} cat")).fit(clip)
    assert torch.equal(once.directions, twice.directions)
    assert ZeroShot(["red_dog", "cat"]).prompts()["red_dog"] == ("a photo of a red dog.",)


def test_descriptions_join_the_prompts(clip):
    model = ZeroShot(NAMES, ("a {} cat",), {"red": ["a red thing", "a red cat"]}).fit(clip)
    assert model.prompts["red"] == ("a red cat", "a red thing")
    plain = ZeroShot(NAMES, ("a {} cat",)).fit(clip)
    torch.testing.assert_close(model.directions[1:], plain.directions[1:], rtol=0, atol=1e-6)
    assert not torch.allclose(model.directions[0], plain.directions[0])
    with pytest.raises(InputError, match="of 'rad', which is no class name; did you mean 'red'"):
        ZeroShot(NAMES, descriptions={"rad": ["a red thing"]})


def test_none_of_these(clip):
    model = ZeroShot(NAMES).fit(clip)
    values = torch.randn(50, clip.embed_dim, generator=torch.Generator().manual_seed(0))
    best = model.probabilities(values).amax(dim=1)
    assert torch.equal(model.none_of_these(values, 0.7), best < 0.7)
    assert not model.none_of_these(values, 1 / 3 - 1e-9).any()  # the largest of three is at least a third
    with pytest.raises(InputError, match=r"probability in \[0, 1\]"):
        model.none_of_these(values, 1.5)


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        ((), ("a {}",), "at least one class name"),
        (("cat", " "), ("a {}",), "none may be empty"),
        (("cat", "cat "), ("a {}",), "'cat' was given twice"),
        ("cat", ("a {}",), "class names are a list"),
        (("cat",), (), "templates are a list"),
        (("cat",), "a {}", "templates are a list"),
        (("cat",), ("a photo",), "exactly once, got 'a photo'"),
        (("cat",), ("{} {}",), "exactly once"),
    ],
)
def test_refusals(names, templates, message):
    with pytest.raises(InputError, match=message):
        ZeroShot(names, templates)


def test_names_that_read_the_same_are_refused(clip):
    with pytest.raises(InputError, match="'zebra' and 'yak' read the same"):  # both unknown to this vocabulary
        ZeroShot(["cat", "zebra", "yak"]).fit(clip)


def test_a_name_longer_than_the_context_says_what_would_be_cut(clip):
    with pytest.raises(InputError, match=r"has 1\d tokens, but .* reads 12: .* would be cut off"):
        ZeroShot(["cat", "cat dog cat dog cat dog cat"]).fit(clip)


def test_template_sets_are_what_they_are_called(tmp_path):
    assert [len(TEMPLATE_SETS[name]) for name in ("plain", "seven", "eighty")] == [1, 7, 80]
    for templates in TEMPLATE_SETS.values():
        assert ZeroShot(["cat"], templates).templates == templates  # each once, each with its place
    file = tmp_path / "templates.txt"
    file.write_text("a {}\n\n the {} \n")
    assert read_lines(file, "templates") == ("a {}", "the {}")
    file.write_text("\n")
    with pytest.raises(DataError, match="is empty; give a file of templates"):
        read_lines(file, "templates")


def test_on_its_backbone_it_predicts_saves_and_loads(encoder, images, tmp_path):
    backbone = encoder.image_alone()
    test = prepare(images.only("test"), backbone.preprocessing, cache=tmp_path / "cache")["test"]
    model = ZeroShot(NAMES).fit(encoder)
    tuned = on_backbone(backbone, model)
    expected = model.predictions(embed(backbone, test, cache=tmp_path / "cache"))
    torch.testing.assert_close(tuned.predictions(test).values, expected.values, rtol=1e-4, atol=1e-4)
    save_model(tuned, tmp_path / "model")
    again = load_model(tmp_path / "model")
    torch.testing.assert_close(again.predictions(test).values, expected.values, rtol=1e-4, atol=1e-4)
    assert again.method == "zero-shot"
    assert again.record["kind"] == encoder.kind
    assert again.record["prompts"]["red"] == ["a photo of a red."]
