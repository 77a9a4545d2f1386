"""Every pretext's loss, shared by workers and cut into micro-batches, is that of the whole batch in one process.

Four gloo processes are started once; the groups of 1, 2 and 4 of them hold unequal shares of the same 6 images.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.data import Views
from headfirst.nn import (
    dino_loss,
    embed_in_parts,
    nt_xent,
    permutation_set,
    untrained_backbone,
    vicreg,
)
from headfirst.pretrain import (
    DINO,
    Distillation,
    Jigsaw,
    Masked,
    Pretext,
    Pretraining,
    Rotation,
    SimCLR,
    VICReg,
    train_backbone,
)
from headfirst.pretrain.pretext import Learner
from headfirst.randomness import Draw
from tiny import make_split

SHARES = {1: (6,), 2: (4, 2), 4: (2, 1, 2, 1)}
MICRO_BATCHES = (None, 1, 2, 4)
IMAGES = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
DRAW = Draw(5, 2, np.arange(40, 46))
VIEWS = Views.photographs()
NAMES = ("simclr", "vicreg", "rotation", "jigsaw", "masked", "dino", "distil")
CASES = list(itertools.product(NAMES, SHARES, MICRO_BATCHES))


def learner_of(name: str) -> Learner:
    teacher = untrained_backbone("small-vit", seed=1, size=16, width=32).double()
    pretexts: dict[str, Pretext] = {
        "simclr": SimCLR(projection=8), "vicreg": VICReg(expansion=8), "rotation": Rotation(),
        "jigsaw": Jigsaw(grid=2), "masked": Masked(decoder_dim=16), "dino": DINO(prototypes=8, local_crops=1),
        "distil": Distillation(teacher=teacher),
    }  # fmt: skip
    backbone = untrained_backbone("small-vit", seed=0, size=16, width=32)
    return pretexts[name].learner(backbone, seed=3, num_steps=10).double().train()


def outcome(learner: Learner, loss: Tensor) -> Tensor:
    """The loss and the gradient of every parameter (zero where it has none), in one row."""
    assert isinstance(learner, nn.Module)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return torch.cat([loss.detach().reshape(1), *(g.reshape(-1) for g in gradients)])


def whole_batch(name: str) -> Tensor:
    """The reference: all rows at once, and the loss written out by other means."""
    learner = learner_of(name)
    rows = learner.encode(IMAGES, DRAW, VIEWS)
    if name == "simclr":
        z = F.normalize(rows.transpose(0, 1).flatten(0, 1), dim=1)
        logits = (z @ z.T / 0.2).masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf)
        loss = F.cross_entropy(logits, torch.arange(12).roll(6))
    elif name == "vicreg":
        a, b = rows.unbind(dim=1)
        loss = 25 * F.mse_loss(a, b)
        for z in (a, b):
            cov = torch.cov(z.T)
            loss = loss + 25 * F.relu(1 - (cov.diagonal() + 1e-4).sqrt()).mean() / 2
            loss = loss + (cov - cov.diagonal().diag()).square().sum() / 8
    elif name == "rotation":
        loss = -torch.stack([rows[i, k].log_softmax(0)[k] for i in range(6) for k in range(4)]).mean()
    elif name == "jigsaw":
        answers = (DRAW.uniform(100) * len(permutation_set(4, 3))).astype(int)
        loss = -torch.stack([rows[i].log_softmax(0)[answers[i]] for i in range(6)]).mean()
    elif name == "dino":
        pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]
        center = torch.zeros(8, dtype=torch.float64)
        loss = sum(dino_loss(rows[:, s], rows[:, 3 + t], center, 0.1, 0.02) for t, s in pairs) / 4
    else:
        loss = rows.mean()
    return torch.cat([outcome(learner, loss), torch.zeros(8) if name != "dino" else rows[:, 3:].mean(dim=(0, 1))])


def own_share(workers: dist.ProcessGroup, name: str, micro_batch: int | None) -> Tensor:
    """A worker's share of loss and gradients, weighted and summed over the workers as the training loop does."""
    learner, sizes = learner_of(name), SHARES[workers.size()]
    first = sum(sizes[: workers.rank()])
    mine = slice(first, first + sizes[workers.rank()])
    images, draw = IMAGES[mine], DRAW.take(mine)
    n = len(images)
    rows = embed_in_parts(lambda s: learner.encode(images[s], draw.take(s), VIEWS), n, micro_batch=micro_batch)
    loss = learner.loss(rows, draw, workers if workers.size() > 1 else None)
    share = outcome(learner, loss * (n / 6))
    dist.all_reduce(share, group=workers)
    center = getattr(learner, "batch_center", torch.zeros(8)).double()
    return torch.cat([share, center.detach()])


def no_gradient(own: Tensor, sizes: tuple[int, ...], workers: dist.ProcessGroup) -> Tensor:
    """The planted fault: everybody's rows, but those of the others only as numbers."""
    with torch.no_grad():
        every = TRUE_GATHER(own, sizes, workers)
    first = sum(sizes[: workers.rank()])
    return torch.cat([every[:first], own, every[first + len(own) :]])


TRUE_GATHER = nt_xent.gather


def work(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=4)
    groups = {size: dist.new_group(list(range(size))) for size in SHARES}
    results = {case: own_share(groups[case[1]], case[0], case[2]) for case in CASES if rank < case[1]}
    for module in (nt_xent, vicreg):
        module.gather = no_gradient
    results |= {("fault", name, size): own_share(groups[size], name, None)
                for size in (2, 4) if rank < size for name in ("simclr", "vicreg")}  # fmt: skip
    if rank == 0:
        torch.save(results, f"{directory}/results")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    directory = tmp_path_factory.mktemp("workers")
    multiprocessing.set_forkserver_preload(["pytest", "torch.distributed", "headfirst.nn"])
    mp.start_processes(work, (str(directory),), nprocs=4, start_method="forkserver")
    return torch.load(Path(directory) / "results")


@pytest.mark.parametrize("name", NAMES)
def test_value_and_every_gradient_are_the_whole_batch_s(results: dict, name: str):
    reference = whole_batch(name)
    assert reference[1:].abs().max() > 1e-3
    for case in (case for case in CASES if case[0] == name):
        assert (results[case] - reference).abs().max() < 1e-10, case


def test_a_gather_that_forgets_the_others_turns_the_comparison_red(results: dict):
    for name, size in itertools.product(("simclr", "vicreg"), (2, 4)):
        faulty, reference = results["fault", name, size], whole_batch(name)
        assert abs(faulty[0] - reference[0]) < 1e-10  # the value alone would not show it
        assert (faulty - reference).abs().max() > 1e-3


RECIPE = Pretraining(pretext=VICReg(expansion=8), epochs=3, batch_size=7, lr=1e-3)


def pre_train(directory: str | None) -> tuple[tuple[float, ...], dict[str, Tensor]]:
    start = untrained_backbone("small-resnet", seed=0, size=16, width=32)
    where = None if directory is None else Path(directory)
    done = train_backbone(start, make_split("unlabelled", 16, seed=0), RECIPE, directory=where)
    return done.record.losses, done.backbone.state_dict()


def train_together(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    os.environ["HEADFIRST_CACHE"] = f"{directory}/cache"
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    torch.save((pre_train(f"{directory}/kept"), pre_train(None)), f"{directory}/{rank}")
    dist.destroy_process_group()


def test_two_workers_train_what_one_process_trains(tmp_path: Path):
    multiprocessing.set_forkserver_preload(["pytest", "torch.distributed", "headfirst.nn"])
    mp.start_processes(train_together, (str(tmp_path),), nprocs=2, start_method="forkserver")
    (first, unkept), (second, _) = (torch.load(tmp_path / str(rank)) for rank in range(2))
    losses, weights = pre_train(None)
    assert first[0] == second[0] == unkept[0] == pytest.approx(losses, rel=1e-5)
    for name, value in weights.items():
        assert torch.equal(first[1][name], second[1][name]), name  # workers stay together, to the bit
        assert torch.equal(first[1][name], unkept[1][name]), name
        assert (first[1][name] - value).abs().mean() < 1e-4, name
