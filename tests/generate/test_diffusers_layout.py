"""Folders of diffusers: read, sampled, written back, and refused where they are not what they say."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from headfirst.errors import ArtefactError, InputError
from headfirst.generate import load_generator
from headfirst.generate.diffusion import (
    DiscreteSchedule,
    ddpm,
    euler,
    heun,
    linear_alphas_bar,
    load_diffusers,
    prediction_of,
    read_scheduler,
    recognised,
    save_diffusers,
)
from headfirst.nn import DiffusersUNet, DiffusersUNetShape

GOLDEN = json.loads((Path(__file__).parents[1] / "nn" / "diffusers_golden.json").read_text())
UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
SCHEDULER = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "clip_sample": True}
INDEX = {
    "_class_name": "DDPMPipeline",
    "_diffusers_version": "0.42.1",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}


def untrained(unet, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    state = DiffusersUNet(DiffusersUNetShape.from_config(unet)).state_dict()
    return {
        name: (0.1 * torch.randn(value.shape, generator=generator) + ("norm" in name)).to(dtype)
        for name, value in state.items()
    }


def write(folder, *, unet=UNET, scheduler=SCHEDULER, index=INDEX, weights=None, dtype=torch.float32):
    for name, about in (
        ("model_index.json", index),
        ("unet/config.json", unet),
        ("scheduler/scheduler_config.json", scheduler),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(about))
    save_file(weights or untrained(unet, dtype), folder / "unet/diffusion_pytorch_model.safetensors")
    return folder


@pytest.mark.parametrize("number", range(len(GOLDEN["schedulers"])))
def test_noise_falls_as_in_diffusers(number):
    case = GOLDEN["schedulers"][number]
    found = read_scheduler(case["config"]).schedule.alphas_bar[case["steps"]]
    assert torch.allclose(found, torch.tensor(case["alphas_bar"], dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"_class_name": "DDPMScheduler"}, ("epsilon", "leading", 1.0, 1e-4)),
        ({"_class_name": "DDIMScheduler", "clip_sample": False, "prediction_type": "sample",
          "timestep_spacing": "trailing"}, ("x0", "trailing", None, 1e-4)),
        ({"_class_name": "DDIMScheduler", "clip_sample_range": 2.5, "prediction_type": "v_prediction",
          "timestep_spacing": None, "trained_betas": None}, ("v", "leading", 2.5, 1e-4)),
        ({"_class_name": "PNDMScheduler", "beta_start": 0.001}, ("epsilon", "leading", None, 0.001)),
        ({"_class_name": "EulerDiscreteScheduler"}, ("epsilon", "linspace", None, 1e-4)),
        ({"_class_name": "HeunDiscreteScheduler"}, ("epsilon", "linspace", None, 8.5e-4)),
    ],
)  # fmt: skip
def test_settings_are_read_and_each_scheduler_has_its_own_defaults(said, expected):
    found = read_scheduler(said)
    beta = 1 - found.schedule.alphas_bar[0].item()
    assert (found.prediction, found.spacing, found.clip, pytest.approx(beta)) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_read_is_written_back_bit_for_bit(tmp_path, dtype):
    write(tmp_path / "a", dtype=dtype)
    generator = load_diffusers(tmp_path / "a")
    weights = (tmp_path / "a" / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    assert generator.record == {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    save_diffusers(generator, tmp_path / "b")
    for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        assert json.loads((tmp_path / "a" / name).read_text()) == json.loads((tmp_path / "b" / name).read_text())
    before, after = (load_file(tmp_path / x / "unet/diffusion_pytorch_model.safetensors") for x in "ab")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) and before[k].dtype == after[k].dtype for k in before)


def test_old_names_of_attention_are_read(tmp_path):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = untrained(UNET)
    renamed = {}
    for name, value in weights.items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        renamed[name] = value
    assert "mid_block.attentions.0.proj_attn.bias" in renamed
    write(tmp_path / "new", weights=weights)
    write(tmp_path / "old", weights=renamed)
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    new, old = (load_diffusers(tmp_path / name).network for name in ("new", "old"))
    assert torch.equal(
        new.denoiser()(x.view(2, 1, 8, 8), torch.tensor(1.0)), old.denoiser()(x.view(2, 1, 8, 8), torch.tensor(1.0))
    )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_diffusers(write(tmp_path_factory.mktemp("model")))


def test_the_denoiser_is_the_schedulers_guess_of_the_image(loaded):
    """x0 = (x_t - √(1-ᾱ) ε) / √ᾱ at a training step, kept in [-1, 1], from the network's own answer."""
    t, network = 300, loaded.network
    alpha_bar = linear_alphas_bar(1000)[t]
    x_t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    epsilon = network.unet(x_t.float(), torch.full((2,), float(t))).double()
    expected = ((x_t - (1 - alpha_bar).sqrt() * epsilon) / alpha_bar.sqrt()).clamp(-1, 1)
    found = network.denoiser()(x_t / alpha_bar.sqrt(), ((1 - alpha_bar) / alpha_bar).sqrt())
    assert torch.allclose(found, expected, atol=1e-5)
    assert 0 < int((expected.abs() == 1).sum()) < expected.numel()


def test_ddpm_over_its_own_levels_is_its_own_loop(loaded):
    """Ho et al.'s loop in their variables, with the same noise, five steps."""
    network = loaded.network
    levels = network.levels(5)
    noise = torch.Generator().manual_seed(1)
    x0 = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = ddpm(network.denoiser(), float(levels[0]) * x0, levels, generator=torch.Generator().manual_seed(1))
    alphas_bar, steps = linear_alphas_bar(1000), [800, 600, 400, 200, 0]
    x = x0 * (1 - alphas_bar[800]).sqrt()
    for i, t in enumerate(steps):
        now, then = alphas_bar[t], alphas_bar[steps[i + 1]] if i < 4 else torch.tensor(1.0, dtype=torch.float64)
        guess = network.denoiser()(x / now.sqrt(), ((1 - now) / now).sqrt())
        beta = 1 - now / then
        mean = then.sqrt() * beta / (1 - now) * guess + (now / then).sqrt() * (1 - then) / (1 - now) * x
        z = torch.randn(x.shape, generator=noise, dtype=torch.float64) if i < 4 else 0
        x = mean + ((1 - then) / (1 - now) * beta).sqrt() * z
    assert torch.allclose(found, x, atol=1e-5)


def test_samplers_take_it_and_images_do_not_depend_on_their_number(loaded):
    x = float(loaded.network.sigma_max) * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    levels = loaded.network.levels(3).clamp_max(loaded.network.sigma_max)
    for sampler in (euler, heun):
        assert bool(sampler(loaded.network.denoiser(), x, levels).isfinite().all())
    some, more = loaded.sample(2, seed=3), loaded.sample(3, seed=3)
    assert torch.equal(some.pixels, more.pixels[:2])
    assert some.pixels.shape == (2, 3, 8, 8)
    assert float(some.pixels.float().std()) > 0


def test_it_is_found_as_a_generator_and_saved_as_one(tmp_path, loaded):
    write(tmp_path / "diffusers")
    found = load_generator(tmp_path / "diffusers")
    assert (found.kind, found.fingerprint) == ("diffusers", loaded.fingerprint)
    found.save(tmp_path / "ours")
    assert load_generator(tmp_path / "ours").fingerprint == loaded.fingerprint


def test_classes_are_numbered(tmp_path):
    generator = load_diffusers(write(tmp_path, unet=UNET | {"num_class_embeds": 3}))
    assert generator.classes == ("0", "1", "2")
    a, b = (generator.sample(1, label=k).pixels for k in (0, 2))
    assert not torch.equal(a, b)


def test_a_learned_variance_is_left_out(tmp_path):
    unet = UNET | {"out_channels": 2}
    generator = load_diffusers(write(tmp_path, unet=unet, scheduler=SCHEDULER | {"variance_type": "learned_range"}))
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([10.0])
    assert torch.equal(generator.network.predict(x, t), generator.network.unet(x, t)[:, :1])


def test_zero_terminal_snr_begins_at_the_last_step_with_an_image(tmp_path):
    said = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    network = load_diffusers(write(tmp_path, scheduler=SCHEDULER | said)).network
    alphas_bar = network.about.schedule.alphas_bar
    assert alphas_bar[-1] == 0
    assert network.sigma_max == pytest.approx(float(((1 - alphas_bar[-2]) / alphas_bar[-2]).sqrt()))
    assert float(network.levels(4)[0]) == network.sigma_max


class OfSmoothImages:
    """The best prediction of any kind for images that are multiples of a ramp, ~ N(0, 0.5²)."""

    def __init__(self, kind, schedule):
        self.kind, self.schedule = kind, schedule
        ramp = torch.linspace(-0.6, 0.6, 8).expand(1, 1, 8, 8)
        self.ramp = ramp / ramp.norm()

    def __call__(self, x, t):
        alpha, sigma = (f(t).float() for f in (self.schedule.alpha, self.schedule.sigma))
        variance = 16.0
        x0 = (x * self.ramp).sum() * alpha * variance / (alpha**2 * variance + sigma**2) * self.ramp
        return prediction_of(self.kind, x0, x, alpha, sigma)


@pytest.mark.parametrize("kind", ["epsilon", "x0", "v"])
def test_predictions_are_told_apart(kind):
    schedule = DiscreteSchedule(linear_alphas_bar(1000))
    assert recognised(OfSmoothImages(kind, schedule), schedule, (1, 1, 8, 8)) == kind


def test_an_untrained_network_predicts_nothing_that_is_known(loaded):
    network = loaded.network
    assert recognised(network.predict, network.about.schedule, (1, 1, 8, 8)) is None


def test_another_prediction_than_declared_is_refused(tmp_path, monkeypatch):
    write(tmp_path, scheduler=SCHEDULER | {"prediction_type": "v_prediction"})
    predict = OfSmoothImages("epsilon", DiscreteSchedule(linear_alphas_bar(1000)))
    monkeypatch.setattr(
        "headfirst.generate.diffusion.diffusers_network.DiffusersNetwork.predict",
        lambda self, x, t, labels=None: predict(x, t),
    )
    with pytest.raises(InputError, match=r"declares that the network predicts v_prediction, but .* epsilon"):
        load_diffusers(tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"unet": UNET | {"_class_name": "UNet2DConditionModel"}},
            InputError,
            "must be of a UNet2DModel, got 'UNet2DC",
        ),
        (
            {"index": INDEX | {"vae": ["diffusers", "AutoencoderKL"]}},
            InputError,
            "unet and a scheduler alone, got .*vae",
        ),
        ({"index": INDEX | {"unet": ["diffusers", "DiT"]}}, InputError, "must name a UNet2DModel, got 'DiT'"),
        ({"scheduler": SCHEDULER | {"_class_name": "ScoreSdeVeScheduler"}}, InputError, "discrete variance-preserving"),
        ({"scheduler": SCHEDULER | {"_class_name": "DDPMSchedule"}}, InputError, "did you mean 'DDPMScheduler'"),
        ({"scheduler": SCHEDULER | {"prediction_type": "flow"}}, InputError, "must be one of epsilon, sample, v_pred"),
        ({"scheduler": SCHEDULER | {"beta_schedule": "sigmoid"}}, InputError, "beta_schedule must be one of linear"),
        ({"scheduler": SCHEDULER | {"beta_start": 0.0, "beta_end": 0.0}}, InputError, "must fall from step to step"),
        (
            {"scheduler": SCHEDULER | {"trained_betas": [0.1, -0.1, 0.1], "num_train_timesteps": 3}},
            InputError,
            "must fall from step to step",
        ),
        ({"scheduler": SCHEDULER | {"trained_betas": [0.1, 0.2]}}, InputError, r"1000 numbers, got \(2,\)"),
        ({"scheduler": SCHEDULER | {"thresholding": True}}, InputError, "dynamic thresholding"),
        ({"scheduler": SCHEDULER | {"timestep_type": "continuous"}}, InputError, "timestep_type must be 'discrete'"),
        ({"scheduler": SCHEDULER | {"variance_type": "learned"}}, InputError, "1 channels .* must return 2, got 1"),
        ({"unet": UNET | {"out_channels": 2}}, InputError, "declares no learned variance.* must return 1, got 2"),
        ({"unet": UNET | {"sample_size": [8, 16]}}, InputError, "side of square images"),
        (
            {"unet": UNET | {"layers_per_block": 2}, "weights": untrained(UNET)},
            ArtefactError,
            "does not fit unet/config.json",
        ),
        (
            {"weights": {name: value * float("nan") for name, value in untrained(UNET).items()}},
            InputError,
            "finite numbers, at step 999 it does not",
        ),
    ],
)
def test_what_is_not_as_it_says_is_refused(tmp_path, change, error, message):
    write(tmp_path, **change)
    with pytest.raises(error, match=message):
        load_diffusers(tmp_path)


def test_pickles_and_missing_files_are_refused(tmp_path):
    write(tmp_path)
    weights = tmp_path / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match="a pickle, which can run code and is not read: convert it"):
        load_diffusers(tmp_path)
    weights.with_suffix(".bin").rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    with pytest.raises(InputError, match=r"fp16.safetensors; weights in several files, or of a variant"):
        load_diffusers(tmp_path)
    weights.write_bytes(b"not weights")
    with pytest.raises(ArtefactError, match="cannot be read"):
        load_diffusers(tmp_path)
    (tmp_path / "unet/config.json").unlink()
    with pytest.raises(InputError, match=r"config.json is missing; a folder of diffusers has model_index.json"):
        load_diffusers(tmp_path)


def test_only_what_was_read_is_written_and_only_into_a_folder_of_its_own(tmp_path, loaded):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match="holds files that are no diffusers model"):
        save_diffusers(loaded, tmp_path)
