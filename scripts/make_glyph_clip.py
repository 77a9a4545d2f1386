"""Makes `builtin/glyph-clip`, the small dual encoder for the embedded digits: CLIP on coloured digits and captions.

    python scripts/make_glyph_clip.py --seed 0       half an hour on one core, more if others use it

What enters: the images and labels of `train` of `ImageSet.digits()`; `val`, `test` and the UCI digits are never read.
What leaves: config.json, model.safetensors, preprocessor_config.json and the tokenizer in
`src/headfirst/nn/glyph-clip/`, in transformers' layout of a CLIPModel.

Every picture is drawn anew each time: another hand (an affine and an elastic map), another scanner, then a style of
`headfirst.data.coloured`. All captions of a batch mention the same attributes, so that a caption is true of exactly
the images of its group and no partner is taken for a stranger. The share of coloured pictures grows from none.

Radford et al., ICML 2021, section 2; groups: Yang et al., CVPR 2022; fixed sine-cosine start of the position
embeddings: Chen, Xie & He, ICCV 2021, section 4. N batch, D dimension.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import pre_tokenizers
from torch import Generator, Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from headfirst.adapt.templates import TEMPLATE_SETS
from headfirst.data import ImageSet, ImageSplit
from headfirst.data.coloured import (
    COLOURS,
    DIGITS,
    NOISES,
    SLANTS,
    THICKNESSES,
    Styles,
    draw,
    draw_styles,
    with_article,
)
from headfirst.data.ink import dilated, eroded, ink_of
from headfirst.nn.allocator import keep_freed_memory
from headfirst.nn.contrastive import contrastive_loss
from headfirst.types import Preprocessing

FOLDER = Path(__file__).parents[1] / "src" / "headfirst" / "nn" / "glyph-clip"
STEPS = 6_000
SIZE, CONTEXT, WIDTH, DIMENSION, PATCH = 24, 32, 64, 64, 4
COLOURED = 0.65
"""Share of the pictures that are coloured, once it has grown."""
PREPROCESSING = Preprocessing(resize=SIZE, resample="bicubic", crop=(SIZE, SIZE), mean=(0.5,) * 3, std=(0.35,) * 3)
BEGIN, END = "<|startoftext|>", "<|endoftext|>"

ATTRIBUTES = {"digit": DIGITS, "ink": tuple(COLOURS), "background": tuple(COLOURS), "thickness": THICKNESSES,
              "slant": SLANTS, "noise": NOISES}  # fmt: skip
SYNONYMS = {
    "purple": ("purple", "purple", "violet"),
    "thin": ("thin", "fine", "slim"), "thick": ("thick", "bold", "heavy"),
    "left": ("slanted left", "leaning left", "slanted to the left"),
    "upright": ("upright", "straight"),
    "right": ("slanted right", "leaning right", "slanted to the right"),
    "clean": ("clean", "without noise"), "noisy": ("noisy", "grainy", "with noise"),
}  # fmt: skip
PICTURES = ("photo", "picture", "image", "drawing", "painting", "sketch", "scan", "rendering", "cartoon", "sculpture",
            "toy", "photograph", "view")  # fmt: skip
FILLERS = ("bad", "good", "poor", "blurry", "blurred", "sharp", "bright", "dark", "large", "small", "cropped", "close",
           "close-up", "low-resolution", "faded", "plush", "pencil", "plastic", "nice", "dirty", "old", "new",
           "handwritten", "printed", "strange", "single", "little", "big", "simple", "real")  # fmt: skip
PLACES = ("seen from afar", "in the wild", "up close", "on paper")


def sentence(said: Mapping[str, str], random: Random) -> str:
    """One way to say that a picture has these attributes, e.g. {"digit": "seven", "ink": "red"}."""
    said = {key: random.choice(SYNONYMS.get(value, (value,))) for key, value in said.items()}
    if "digit" in said and random.random() < 0.5:
        said["digit"] = str(DIGITS.index(said["digit"]))
    if len(said) == 1 and random.random() < 0.25:
        return next(iter(said.values()))
    noun = random.choice(("digit", "number", "numeral", "figure"))
    if "digit" in said:
        noun = said["digit"] if random.random() < 0.7 else f"{noun} {said['digit']}"
    before, after = [], []
    for key in random.sample(("slant", "noise"), 2):
        if key in said:
            (before if " " not in said[key] and random.random() < 0.5 else after).append(said[key])
    before += [random.choice(FILLERS)] * (random.random() < 0.15)
    figure = " ".join([*before, *(said[key] for key in ("thickness", "ink") if key in said), noun])
    figure = random.choice((figure, f"the {figure}", with_article(figure), with_article(figure)))
    if "background" in said:
        ground = said["background"]
        figure += random.choice((f" on {ground}", f" on {with_article(f'{ground} background')}"))
    if random.random() < 0.1:
        figure += " " + random.choice(PLACES)
    if random.random() < 0.5:
        picture = " ".join([*[random.choice(FILLERS)] * (random.random() < 0.4), random.choice(PICTURES)])
        picture = random.choice((with_article(picture), f"the {picture}", picture, f"one of many {picture}s"))
        figure = f"{picture} of {figure}"
    return ", ".join([figure, *after]) + random.choice(("", "."))


def mentions(random: Random) -> tuple[str, ...]:
    """Attributes that the captions of a batch mention, at least one."""
    chosen = tuple(key for key in ATTRIBUTES if random.random() < 0.35)
    return chosen or mentions(random)


def learn_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges until every word is one token; of equally frequent pairs the first in the alphabet.

    Sennrich, Haddow & Birch, "Neural Machine Translation of Rare Words with Subword Units", ACL 2016, algorithm 1. The
    trainer of `tokenizers` breaks ties differently from run to run.
    """
    spelt = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges = []
    while counts := Counter(pair for word in spelt for pair in pairwise(word)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        for word in spelt:
            for i in range(len(word) - 2, -1, -1):
                if tuple(word[i : i + 2]) == best:
                    word[i : i + 2] = ["".join(best)]
    return merges


def make_tokenizer() -> CLIPTokenizer:
    """CLIP's own kind, byte-level BPE: a word of the captions is one token, any other is spelt, none is unknown."""
    random = Random(0)
    words: set[str] = set()
    for _ in range(20_000):
        said = {key: random.choice(ATTRIBUTES[key]) for key in mentions(random)}
        words.update(re.findall(r"[a-z]+|[0-9]|[^a-z0-9\s]", sentence(said, random)))
    words.update(re.findall("[a-z]+", " ".join(template for each in TEMPLATE_SETS.values() for template in each)))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = learn_merges(sorted(words))
    symbols = [*alphabet, *(byte + "</w>" for byte in alphabet), *("".join(merge) for merge in merges), BEGIN, END]
    vocabulary = {symbol: number for number, symbol in enumerate(dict.fromkeys(symbols))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)


def tokenise(texts: Sequence[str], tokenizer: CLIPTokenizer, random: Random, *, spelt: float) -> dict[str, Tensor]:
    """Token ids, padded to the longest text; a share `spelt` of the tokens, by chance, comes in single bytes.

    So the pieces that other words are made of mean something too. After Provilkov, Emelianenko & Voita, "BPE-Dropout",
    ACL 2020, with whole tokens split instead of single merges left out: the dropout of `tokenizers` has no seed.
    """

    def bytes_of(number: int) -> list[int]:
        symbol = tokenizer.convert_ids_to_tokens(number)
        letters = list(symbol.removesuffix("</w>"))
        if symbol.endswith("</w>"):
            letters[-1] += "</w>"
        return tokenizer.convert_tokens_to_ids(letters)

    special = set(tokenizer.all_special_ids)
    split = [
        [
            piece
            for number in numbers
            for piece in (bytes_of(number) if number not in special and random.random() < spelt else [number])
        ]
        for numbers in tokenizer(list(texts)).input_ids
    ]
    cut = [numbers if len(numbers) <= CONTEXT else [*numbers[: CONTEXT - 1], numbers[-1]] for numbers in split]
    return dict(tokenizer.pad({"input_ids": cut}, return_tensors="pt"))


def make_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The untrained network; the global random state must be seeded."""
    shape = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": WIDTH // 32,
             "projection_dim": DIMENSION, "hidden_act": "gelu"}  # fmt: skip
    numbers = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
               "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    text = {
        **shape,
        **numbers,
        "num_hidden_layers": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT,
    }
    vision = {**shape, "num_hidden_layers": 4, "image_size": SIZE, "patch_size": PATCH}
    model = CLIPModel(
        CLIPConfig(
            text_config=text, vision_config=vision, projection_dim=DIMENSION, logit_scale_init_value=math.log(1 / 0.07)
        )
    )
    with torch.no_grad():
        model.vision_model.embeddings.position_embedding.weight[1:] = sine_cosine(SIZE // PATCH, WIDTH) / 2
    return model


def sine_cosine(side: int, width: int) -> Tensor:
    """(side², width): sines and cosines of column and row, so that near patches start out alike."""
    frequencies = 0.01 ** (torch.arange(width // 4) / (width // 4))
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies for place in (column, row)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


def _between(low: float, high: float, count: int, generator: Generator) -> Tensor:
    """(count, 1, 1, 1) uniform draws."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)


def _sometimes(changed: Tensor, ink: Tensor, probability: float, generator: Generator) -> Tensor:
    """`changed` where a coin says so, `ink` elsewhere; one coin an image."""
    return torch.where(_between(0, 1, len(ink), generator) < probability, changed, ink)


def vary(ink: Tensor, strength: float, generator: Generator) -> Tensor:
    """Another hand and another scanner, (N, H, W) ink to ink: as in `headfirst.data.Handwriting`, filling the frame.

    Args:
        strength: 0 … 1, of rotation, shear and the elastic field.
    """
    n, size = len(ink), ink.shape[-1]
    ink = ink[:, None]
    angle, shear = (_between(-0.3 * strength, 0.3 * strength, n, generator).flatten() for _ in range(2))
    width, height = (_between(-0.38, 0.22, n, generator).flatten().exp() for _ in range(2))
    shift_x, shift_y = (_between(-0.15, 0.15, n, generator).flatten() for _ in range(2))
    across = torch.stack([width * angle.cos(), width * (shear - angle.sin()), shift_x], dim=1)
    down = torch.stack([height * angle.sin(), height * angle.cos(), shift_y], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), [n, 1, size, size], align_corners=False)
    coarse = torch.randn(n, 2, 5, 5, generator=generator) * _between(0, 0.14 * strength, n, generator)
    elastic = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    ink = F.grid_sample(ink, grid + elastic.permute(0, 2, 3, 1), align_corners=False)
    for change, most, probability in ((dilated, 1.0, 0.4), (eroded, 0.6, 0.2)):
        changed = ink.lerp(change(ink[:, 0])[:, None], _between(0, most, n, generator))
        ink = _sometimes(changed, ink, probability, generator)
    for cells, probability in ((14, 0.2), (8, 0.25)):
        coarse = F.adaptive_avg_pool2d(ink, cells)
        fine = F.interpolate(coarse, size=(size, size), mode="bicubic", antialias=True)
        ink = _sometimes(fine.clamp(0, 1), ink, probability, generator)
    ink = ink.clamp(0, 1) ** _between(-0.5, 0.5, n, generator).exp() * _between(0.75, 1.0, n, generator)
    return ink[:, 0]


def normalised(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) as the preprocessing has them, to rounding."""
    resized = F.interpolate(images, size=(SIZE, SIZE), mode="bicubic", antialias=True)  # in uint8, as Pillow does
    return (resized / 255 - PREPROCESSING.mean[0]) / PREPROCESSING.std[0]


def embed_images(model: CLIPModel, pixels: Tensor) -> Tensor:
    """(N, D), of unit norm."""
    return F.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=1)


def embed_texts(model: CLIPModel, tokens: Mapping[str, Tensor]) -> Tensor:
    """(N, D), of unit norm."""
    return F.normalize(model.get_text_features(**tokens).pooler_output, dim=1)


def plain(styles: Styles) -> Styles:
    """The same digits as they were written, white on black."""
    colours = list(COLOURS)
    values = {
        "ink": colours.index("white"),
        "background": colours.index("black"),
        "thickness": -1,
        "slant": -1,
        "noise": 0,
    }
    return replace(styles, **{key: np.full(len(styles), value) for key, value in values.items()})


def captions(styles: Styles, mentioned: Sequence[str], random: Random) -> tuple[Tensor, list[str], Tensor]:
    """The rows whose style has every mentioned attribute, a caption for each, and its group.

    A caption is true of exactly the images of its group.
    """
    table = np.stack([getattr(styles, key) for key in mentioned], axis=1)
    rows = np.flatnonzero((table >= 0).all(axis=1))
    groups = np.unique(table[rows], axis=0, return_inverse=True)[1].reshape(-1)
    texts = [
        sentence({key: ATTRIBUTES[key][value] for key, value in zip(mentioned, row, strict=True)}, random)
        for row in table[rows].tolist()
    ]
    return torch.from_numpy(rows), texts, torch.from_numpy(groups)


def train(digits: ImageSplit, *, seed: int, steps: int, batch: int = 64, learning_rate: float = 2e-3) -> CLIPModel:
    """CLIP on `digits`; the network returned is an average over the last steps."""
    torch.manual_seed(seed)  # the initial weights; every later draw is from `generator`, `random` or keyed
    generator, random = Generator().manual_seed(seed), Random(seed)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).train()
    average = copy.deepcopy(model)
    decaying = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    parameters = [{"params": decaying, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98))
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min((s + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * s / steps))
    )
    ink, labels, order, total, start = ink_of(digits), digits.labels, np.empty(0, dtype=np.int64), 0.0, time.monotonic()
    for step in range(steps):
        progress = step / steps
        if len(order) < batch:
            order = np.concatenate([order, torch.randperm(len(labels), generator=generator).numpy()])
        rows, order = order[:batch], order[batch:]
        samples = np.arange(batch)
        coloured = COLOURED * min(max((progress - 0.08) / 0.1, 0), 1)
        styles = draw_styles(labels[rows], seed, step, samples=samples)
        styles = styles.where(samples < coloured * batch, plain(styles))
        images = draw(vary(ink[rows], min(1, 0.5 + progress), generator), styles, seed, step, samples=samples)
        embeddings = embed_images(model, normalised(images))

        about = [("digit",)]
        if coloured:
            about = [
                random.choice((("digit",), tuple({"digit": 0} | dict.fromkeys(mentions(random))))),
                mentions(random),
            ]
        said = [captions(styles, mentioned, random) for mentioned in about]
        if not any(each for _, each, _ in said):  # nothing in this batch has what was to be mentioned
            said = [captions(styles, ("digit",), random)]
        texts = list(dict.fromkeys(text for _, each, _ in said for text in each))
        place = {text: number for number, text in enumerate(texts)}
        directions = embed_texts(model, tokenise(texts, tokenizer, random, spelt=0.1 if step % 4 == 0 else 0.0))
        loss = sum(
            contrastive_loss(
                embeddings[of], directions[[place[text] for text in each]], model.logit_scale.exp(), groups=groups
            )
            for of, each, groups in said
            if each
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
            for mean, now in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(now, 0.005)
        total += loss.item() / 200
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}/{steps}  loss {total:.3f}  {time.monotonic() - start:.0f} s", flush=True)
            total = 0.0
    return average.eval()


def save(model: CLIPModel, folder: Path) -> None:
    """config.json, model.safetensors, preprocessor_config.json and the tokenizer, as `transformers` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes 0600
    make_tokenizer().save_pretrained(folder)
    geometry = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}, "resample": 3}
    steps = {
        "do_convert_rgb": True,
        "do_resize": True,
        "do_center_crop": True,
        "do_rescale": True,
        "do_normalize": True,
    }
    numbers = {"rescale_factor": 1 / 255, "image_mean": PREPROCESSING.mean, "image_std": PREPROCESSING.std}
    content = {"image_processor_type": "CLIPImageProcessor", **steps, **geometry, **numbers}
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same sums in the same order, however many cores there are
    keep_freed_memory()
    save(train(ImageSet.digits()["train"], seed=arguments.seed, steps=arguments.steps), arguments.out)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
