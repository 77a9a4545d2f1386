"""`headfirst generate`: train a generator, sample from it, hold its images against real ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headfirst.cli.console import duration, note, progress_display, say
from headfirst.cli.options import (
    BackboneOption,
    DeviceOption,
    ForceOption,
    FreshOption,
    HomeOption,
    JsonOption,
    QuietOption,
    SeedOption,
    SizeOption,
    open_any_images,
    open_backbone,
    out_folder,
    resolve_device,
)
from headfirst.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from headfirst.generate import Generator
    from headfirst.generate.diffusion import Sampling
    from headfirst.study import GeneratorScores
    from headfirst.types import Samples

MODELS = ("vae", "gan", "diffusion", "latent-diffusion")
SHOWN = 5

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Train a generator of images, sample from it, and hold what it makes against real images.",
)

ModelArgument = Annotated[Path, typer.Argument(help="A folder that generate train wrote.")]


@app.command()
def train(
    data: Annotated[str, typer.Argument(help="A folder of images, labelled or not, a manifest, or 'digits'.")],
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "vae",
    vae: Annotated[
        Path | None, typer.Option(help="For latent-diffusion: a folder that generate train --model vae wrote.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Choose the epochs so that training ends in this time.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images. Default: the model's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step. Default: the model's.")] = None,
    size: SizeOption = None,
    without_classes: Annotated[
        bool, typer.Option("--without-classes", help="Leave labels aside, and learn from unlabelled/ too.")
    ] = False,
    force: ForceOption = False,
    seed: SeedOption = 0,
    home: HomeOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the generator and its page.")] = Path("headfirst-generator"),
    device: DeviceOption = "auto",
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a generator. Rerunning the same command resumes a stopped training; its page grows while it runs."""
    if model not in MODELS:
        raise InputError(f"--model {model!r} is none of {', '.join(MODELS)}{did_you_mean(model, MODELS)}")
    if (vae is None) == (model == "latent-diffusion"):
        raise InputError(
            "--model latent-diffusion learns a VAE's latents: give --vae, the folder of generate train --model vae"
            if vae is None
            else f"--vae is for --model latent-diffusion, got {model}; leave it off, or change the model"
        )
    if minutes is not None and epochs is not None:
        raise InputError("--minutes chooses the epochs; give it or --epochs")
    training = training_of(out)
    from headfirst.report import generate_json, write_generate
    from headfirst.study import train_generator

    recipe = _recipe(model, vae=vae, epochs=epochs, batch_size=batch_size, size=size)
    images = open_any_images(data, home)
    where = resolve_device(device)
    if fresh and training.is_dir():
        shutil.rmtree(training)
        clear_growth(out)
    with progress_display(quiet=quiet) as progress:
        done = train_generator(images, recipe, out, minutes=minutes, with_classes=not without_classes, seed=seed,
                               device=where, force=force, told=lambda sentence: note(sentence, quiet=quiet),
                               written=lambda report: write_generate(report, out), progress=progress)  # fmt: skip
    if as_json:
        say(generate_json(done.report))
        return
    about = done.report.about
    classes = f" of {len(done.generator.classes)} classes" if done.generator.classes else ""
    say(f"{about['images']} images{classes}, {model}, {done.report.epochs} epochs in {duration(done.report.seconds)}")
    for event in done.report.events:
        say(event)
    say(f"generator: {out}")
    say(f"page: {out / 'generate.html'}")
    say(f"next: headfirst generate evaluate {out} --data {data}")
    if done.quarantined:
        note(f"{len(done.quarantined)} were set aside:")
        for each in done.quarantined[:SHOWN]:
            note(f"  {each.id}: {each.reason}")


@app.command()
def sample(
    model: ModelArgument,
    num: Annotated[int, typer.Option("--num", "-n", help="How many images.")] = 64,
    class_: Annotated[
        str | None, typer.Option("--class", help="The class of all of them. Default: as the training images had them.")
    ] = None,
    seed: SeedOption = 0,
    start: Annotated[int, typer.Option(help="The first image of the seed: 64 goes on after --num 64.")] = 0,
    sampler: Annotated[
        str | None, typer.Option(help="How a diffusion model draws them, such as heun or ddim. Default: its own way.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Levels of noise on the way, for a diffusion model.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Of a diffusion model: above 1, images more typical of their class, and fewer.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Choose sampler, levels and steps on this model, for this relative error of an image."),
    ] = None,
    out: Annotated[Path, typer.Option(help="A new or empty folder; class folders of PNG files.")] = Path(
        "headfirst-samples"
    ),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make images: a data set by class folders, with what is needed to make each again in samples.json.

    Image i of a seed is the same, bit for bit, however many are asked for.
    """
    if steps is not None and steps < 1:
        raise InputError(f"--steps must be at least 1, got {steps}; 20 is usual")
    if tolerance is not None and (sampler is not None or steps is not None):
        raise InputError("--tolerance chooses sampler and steps; give it, or --sampler and --steps")
    new_folder(out)
    from headfirst.generate import load_generator
    from headfirst.study import choose_for, write_samples

    generator = load_generator(model)
    label = None if class_ is None else generator.label_of(class_)
    sampling = _sampling(generator, method=sampler, num_steps=steps, guidance=guidance)
    where = resolve_device(device)
    with progress_display(quiet=quiet) as progress:
        if tolerance is not None:
            choice = choose_for(generator, tolerance, label=label, like=sampling, seed=seed, progress=progress)
            sampling, error = choice.sampling, choice.chosen.error
            note(f"{sampling.method}, {sampling.num_steps} steps with rho {sampling.rho:g}, {sampling.num_evaluations} "
                 f"evaluations: error {error.value:.2g} [{error.low:.2g}, {error.high:.2g}]", quiet=quiet)  # fmt: skip
        samples = generator.sample(num, seed=seed, label=label, start=start, sampling=sampling, device=where,
                                   progress=progress)  # fmt: skip
    about = write_samples(samples, generator, out, sampling=sampling)
    if as_json:
        say(json.dumps(about, indent=1))
        return
    say(f"{num} images{_of_classes(samples)}: {out}")
    say(f"grid: {about['grid']}")


@app.command()
def evaluate(
    model: ModelArgument,
    data: Annotated[
        str, typer.Option(help="Real images: a folder, a manifest, or 'digits'; what it learned from, for all numbers.")
    ],
    backbone: BackboneOption = None,
    num: Annotated[int, typer.Option(help="How many images to make.")] = 2000,
    split: Annotated[str, typer.Option(help="Which real images: a split that the generator never saw.")] = "test",
    against: Annotated[
        Path | None, typer.Option(help="scores.json of another generator, to be told which is better.")
    ] = None,
    seed: SeedOption = 0,
    home: HomeOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for scores.html and scores.json. Default: the model's.")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Hold its images against real ones it never saw, in the features of any backbone."""
    folder = out_folder(model if out is None else out)
    from headfirst.generate import load_generator
    from headfirst.report import generate_json, read_scores, write_generate
    from headfirst.study import compare_scores, evaluate_generator, evaluation_report

    generator = load_generator(model)
    other = None if against is None else read_scores(against)
    images = open_any_images(data, home)
    features = open_backbone(backbone, data)
    where = resolve_device(device)
    with progress_display(quiet=quiet) as progress:
        found = evaluate_generator(generator, images, features, num=num, split=split, seed=seed, device=where,
                                   progress=progress)  # fmt: skip
        verdict = ""
        if other is not None:
            verdict = compare_scores(found.scores, other, (str(model), str(against))).sentence
        report = evaluation_report(found, generator, images, device=where, verdict=verdict)
    page = write_generate(report, folder)
    if as_json:
        say(generate_json(report))
        return
    _say_scores(found.scores)
    if verdict:
        say(verdict)
    say(f"scores: {page}")


def training_of(out: Path) -> Path:
    """Where a training that writes into `out` keeps its state; refuses an `out` with other files in it."""
    training = out.with_name(f".{out.name}.training")
    if not training.is_dir():
        new_folder(out)
    else:
        out_folder(out)
    return training


def new_folder(out: Path) -> None:
    """Refuse an `out` that holds files."""
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out} holds files already; give a new or an empty folder")
    out_folder(out)


def _recipe(model: str, **given: Any) -> Any:
    """The model's recipe; what was not given is its own."""
    from headfirst.generate import GAN, VAE, Diffusion, LatentDiffusion, load_generator

    kinds: dict[str, Any] = {"vae": VAE, "gan": GAN, "diffusion": Diffusion, "latent-diffusion": LatentDiffusion}
    if (folder := given.get("vae")) is not None:
        given["vae"] = load_generator(folder)
    return kinds[model](**{name: value for name, value in given.items() if value is not None})


def _sampling(generator: Generator, **given: Any) -> Sampling | None:
    """The generator's own way of sampling with what was given in its place; None where nothing was."""
    from headfirst.generate.diffusion import Sampling

    wanted = {name: value for name, value in given.items() if value is not None}
    if not wanted:
        return None
    return replace(getattr(generator.network, "sampling", None) or Sampling(), **wanted)


def clear_growth(out: Path) -> None:
    """What a training that is given up wrote into `out`."""
    names = ("generator.json", "model.safetensors", "generate.html", "generate.json")
    for path in (*(out / name for name in names), *out.glob("samples-[0-9]*.png")):
        path.unlink(missing_ok=True)


def _of_classes(samples: Samples) -> str:
    if not samples.classes:
        return ""
    present = samples.labels.unique().tolist()
    return f" of {samples.classes[present[0]]}" if len(present) == 1 else f" of {len(present)} classes"


def _say_scores(scores: GeneratorScores) -> None:
    """Each score, with what a second sample of the real distribution and real training images get."""
    from headfirst.report import score_lines
    from headfirst.study import told_apart

    say(told_apart(scores))
    made, real = f"{scores.num_generated:,} made images", f"{scores.num_real:,} real ones ({scores.split})"
    say(f"{made} against {real}, {scores.backbone}")
    lines = score_lines(scores)
    width = max(len(title) for _, title, *_ in lines)
    for _, title, value, interval, expected, real, _ in lines:
        between = f" [{interval}]" if interval else ""
        say(f"  {title:<{width}}  {value}{between}; expected {expected}, real images {real}")
    if (b := scores.bound) is not None:
        say(f"  log-likelihood of real images: at least {b.nats:.5g} nats an image [{b.low:.5g} to {b.high:.5g}]")
    if scores.memorisation is not None:
        m = scores.memorisation
        say(f"  repeats training images: {m.verdict} (p = {m.p_value:.2g})")
    else:
        say(f"  repeats training images: not asked, {scores.why_not}")
