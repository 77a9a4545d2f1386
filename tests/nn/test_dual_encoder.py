"""Dual encoders of every family are transformers' own, to rounding; what they save comes back bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

from headfirst.errors import BackboneError, InputError
from headfirst.nn import load_backbone, load_dual_encoder, load_text_tower, pair
from headfirst.nn.families import FAMILIES

JOINT = sorted(name for name, family in FAMILIES.items() if family.joint)
TEXTS = ["a photo of a cat", "a red dog", "the thing", "a drawing of a green dog ."]
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model_type", JOINT)
def test_logits_are_those_of_transformers(checkpoints, model_type):
    directory = checkpoints(model_type)
    encoder = load_dual_encoder(directory)
    model = getattr(transformers, FAMILIES[model_type].joint).from_pretrained(directory).eval()
    tokens = encoder.text.tokenise(TEXTS).inputs
    with torch.inference_mode():
        expected = model(**tokens, pixel_values=IMAGES).logits_per_image
        image = torch.nn.functional.normalize(encoder.image(IMAGES), dim=1)
        text = torch.nn.functional.normalize(encoder.text.embed(TEXTS), dim=1)
        logits = encoder.logit_scale * image @ text.T
        logits = logits if encoder.logit_bias is None else logits + encoder.logit_bias
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert encoder.kind == ("sigmoid" if model_type == "siglip" else "softmax")
    assert (logits[:, 0] - logits[:, 1]).abs().max() > 1e-3  # texts matter


@pytest.mark.parametrize("model_type", JOINT)
def test_saved_and_loaded_bit_for_bit_also_by_transformers(checkpoints, tmp_path, model_type):
    encoder = load_dual_encoder(checkpoints(model_type))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.rand_like(parameter) * 0.01)
        for module in encoder.modules():  # the padding's row gets no gradient, and transformers keeps it at zero
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
    encoder.save(tmp_path)
    again = load_dual_encoder(tmp_path)
    assert again.text.fingerprint == encoder.text.fingerprint
    assert again.image.fingerprint == encoder.image.fingerprint
    assert torch.equal(again.log_logit_scale, encoder.log_logit_scale)
    assert torch.equal(again.text.embed(TEXTS), encoder.text.embed(TEXTS))
    model = transformers.AutoModel.from_pretrained(tmp_path)
    assert torch.equal(model.logit_scale, encoder.log_logit_scale)


@pytest.mark.parametrize("model_type", JOINT)
def test_every_parameter_is_in_exactly_one_place(checkpoints, model_type):
    encoder = load_dual_encoder(checkpoints(model_type))
    in_model = {id(p) for p in encoder.image.model.parameters()}
    places = [encoder.image.parameters(), encoder.text.parameters(), [encoder.log_logit_scale]]
    places += [[encoder.logit_bias]] if encoder.logit_bias is not None else []
    counted = [id(p) for place in places for p in place]
    assert len(counted) == len(set(counted))
    assert set(counted) == in_model


@pytest.mark.parametrize("model_type", JOINT)
def test_the_image_tower_alone_is_what_load_backbone_gives(checkpoints, tmp_path, model_type):
    encoder = load_dual_encoder(checkpoints(model_type))
    alone, backbone = encoder.image_alone(), load_backbone(checkpoints(model_type))
    assert alone.fingerprint == backbone.fingerprint == encoder.image.fingerprint
    assert not any("text" in name for name, _ in alone.model.named_parameters())
    before = encoder.image(IMAGES)
    with torch.no_grad():
        for parameter in alone.parameters():
            parameter.mul_(1.1)
    assert torch.equal(encoder.image(IMAGES), before)
    alone.save(tmp_path)
    assert load_backbone(tmp_path).fingerprint == alone.fingerprint


def test_a_deep_copy_is_independent(checkpoints):
    encoder = load_dual_encoder(checkpoints("clip"))
    before = encoder.text.embed(TEXTS)
    tuned = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.mul_(1.5)
    assert torch.equal(encoder.text.embed(TEXTS), before)
    assert not torch.allclose(tuned.text.embed(TEXTS), before)
    assert tuned.image.model is tuned.text.tower._model


@pytest.mark.parametrize("model_type", JOINT)
def test_a_text_embeds_alike_in_any_batch(checkpoints, model_type):
    text = load_dual_encoder(checkpoints(model_type)).text
    together = text.embed(TEXTS)
    one_by_one = torch.cat([text.embed([each]) for each in TEXTS])
    torch.testing.assert_close(together, one_by_one, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(text.embed(TEXTS, batch_size=3), together, rtol=1e-5, atol=1e-6)
    assert torch.equal(text.embed([*TEXTS, TEXTS[0]])[-1], together[0]) or torch.allclose(
        text.embed([*TEXTS, TEXTS[0]])[-1], together[0], atol=1e-6
    )


def test_a_text_beyond_the_context_says_what_would_be_cut(checkpoints):
    text = load_dual_encoder(checkpoints("clip")).text
    assert text.context_length == 12
    long = "a photo of a cat a photo of a dog thing thing thing"
    assert text.tokenise([long]).lengths == (15,)
    with pytest.raises(InputError, match=r"15 tokens, but .* reads 12: 'thing thing thing' would be cut"):
        text.embed(["a cat", long])
    with pytest.raises(InputError, match="at least one visible character"):
        text.embed(["a cat", " "])
    with pytest.raises(InputError, match="at least one text"):
        text.embed([])


def test_the_fingerprint_is_of_the_tokenizer_and_not_of_what_it_was_last_asked(checkpoints):
    text = load_dual_encoder(checkpoints("clip")).text
    before = text.fingerprint
    text.tokenise(["a cat " * 20])  # longer than the context
    assert text.fingerprint == before
    text.tokenise(["cat"])
    assert text.fingerprint == before


def test_a_sentence_encoder_pools_over_its_own_tokens(sentence_encoder):
    tower = load_text_tower(sentence_encoder)
    model = transformers.BertModel.from_pretrained(sentence_encoder).eval()
    for text in TEXTS:  # one by one, no padding: a plain mean
        with torch.inference_mode():
            hidden = model(input_ids=tower.tokenise([text]).inputs["input_ids"]).last_hidden_state
        torch.testing.assert_close(tower.embed([text])[0], hidden[0].mean(dim=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tower.embed(TEXTS)[2], tower.embed(TEXTS[2:3])[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(load_text_tower(sentence_encoder, pooling="cls").embed(TEXTS[:1])[0], hidden_cls(model, tower))


def hidden_cls(model, tower) -> torch.Tensor:
    with torch.inference_mode():
        return model(**tower.tokenise(TEXTS[:1]).inputs).last_hidden_state[0, 0].clone()


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_pair_is_saved_and_loaded_bit_for_bit(checkpoints, sentence_encoder, tmp_path, kind):
    image, text = load_backbone(checkpoints("resnet")), load_text_tower(sentence_encoder)
    encoder = pair(image, text, dim=7, kind=kind, seed=3)
    assert encoder.embed_dim == 7
    assert encoder.kind == kind
    assert image.feature_dim == 24  # the towers stay as they were
    assert text.projection is None
    assert torch.equal(encoder.image(IMAGES), image(IMAGES) @ encoder.image.projection.weight.T)
    assert encoder.logit_scale.item() == pytest.approx(1 / 0.07 if kind == "softmax" else 10)
    encoder.save(tmp_path)
    again = load_dual_encoder(tmp_path)
    assert torch.equal(again.image(IMAGES), encoder.image(IMAGES))
    assert torch.equal(again.text.embed(TEXTS), encoder.text.embed(TEXTS))
    assert torch.equal(again.log_logit_scale, encoder.log_logit_scale)
    assert (again.logit_bias is None) == (encoder.logit_bias is None)
    backbone = load_backbone(tmp_path)  # a folder of paired towers serves every adaptation as well
    assert backbone.fingerprint == encoder.image.fingerprint == encoder.image_alone().fingerprint
    assert torch.equal(load_text_tower(tmp_path).embed(TEXTS), encoder.text.embed(TEXTS))


def test_refusals(checkpoints, sentence_encoder, tmp_path):
    with pytest.raises(BackboneError, match="is a resnet backbone, which has no text tower"):
        load_dual_encoder(checkpoints("resnet"))
    with pytest.raises(BackboneError, match="is no sentence encoder"):
        load_text_tower(checkpoints("clip"))
    encoder = load_dual_encoder(checkpoints("clip"))
    with pytest.raises(InputError, match="one side of a joint checkpoint"):
        pair(encoder.image, encoder.text)
    encoder.save(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).unlink()
    with pytest.raises(BackboneError, match="has no vocabulary"):
        load_dual_encoder(tmp_path)
    tower = load_text_tower(sentence_encoder)
    tower.save(tmp_path / "text")
    (tmp_path / "text" / "1_Pooling" / "config.json").unlink()
    with pytest.raises(BackboneError, match="never assumed"):
        load_text_tower(tmp_path / "text")
