"""Workers and micro-batches against one process that holds the whole batch and the whole matrix.

Four gloo processes are started once; the groups of 1, 2 and 4 of them hold unequal shares of the same 11 pairs.
"""

from __future__ import annotations

import itertools
import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.nn import contrastive, contrastive_loss, embed_in_parts, sigmoid_contrastive_loss

SHARES = {1: (11,), 2: (7, 4), 4: (5, 1, 3, 2)}
MICRO_BATCHES = (None, 1, 2, 4)
GROUPS = torch.tensor([0, 1, 1, 2, 0, 3, 4, 1, 5, 5, 6])
CASES = list(itertools.product(SHARES, MICRO_BATCHES, ("softmax", "sigmoid"), (False, True)))
IMAGES, TEXTS = (torch.randn(11, 5, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in (0, 1))


class Towers(nn.Module):
    """Two towers in float64, the logit scale as its logarithm, the bias."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 4))
        self.text = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4, bias=False))
        self.log_scale = nn.Parameter(torch.tensor(2.6))
        self.bias = nn.Parameter(torch.tensor(-3.0))
        self.double()
        with torch.no_grad():
            for i, parameter in enumerate((*self.image.parameters(), *self.text.parameters())):
                generator = torch.Generator().manual_seed(i)
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)

    def outcome(self, loss: Tensor) -> list[Tensor]:
        """The loss and the gradient of every parameter (zero where it has none)."""
        parameters = list(self.parameters())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        return [loss.detach().reshape(1), *(g.reshape(-1) for g in gradients)]


def full_batch(kind: str, grouped: bool) -> Tensor:
    """The reference: the N×N matrix and its targets written out."""
    towers = Towers()
    x, y = F.normalize(towers.image(IMAGES), dim=1), F.normalize(towers.text(TEXTS), dim=1)
    named = GROUPS if grouped else torch.arange(11)
    same = (named[:, None] == named).double()
    logits = towers.log_scale.exp() * x @ y.T
    if kind == "softmax":
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    else:
        loss = -F.logsigmoid((2 * same - 1) * (logits + towers.bias)).sum() / 11
    return torch.cat(towers.outcome(loss))


def own_share(workers: dist.ProcessGroup, micro_batch: int | None, kind: str, grouped: bool) -> Tensor:
    """A worker's share of loss and gradients, weighted and summed over the workers as the training loop does."""
    towers, sizes = Towers(), SHARES[workers.size()]
    first, n = sum(sizes[: workers.rank()]), sizes[workers.rank()]
    images, texts, named = IMAGES[first : first + n], TEXTS[first : first + n], GROUPS[first : first + n]
    x = F.normalize(embed_in_parts(lambda s: towers.image(images[s]), n, micro_batch=micro_batch), dim=1)
    y = F.normalize(embed_in_parts(lambda s: towers.text(texts[s]), n, micro_batch=micro_batch), dim=1)
    groups, scale = named if grouped else None, towers.log_scale.exp()
    if kind == "softmax":
        loss = contrastive_loss(x, y, scale, groups=groups, workers=workers)
    else:
        loss = sigmoid_contrastive_loss(x, y, scale, towers.bias, groups=groups, workers=workers)
    share = torch.cat(towers.outcome(loss * n / 11))
    dist.all_reduce(share, group=workers)
    return share


def no_gradient(own: Tensor, sizes: tuple[int, ...], workers: dist.ProcessGroup) -> Tensor:
    """The planted fault: everybody's rows, but only as numbers."""
    with torch.no_grad():
        return TRUE_GATHER(own, sizes, workers)


def own_gradient_only(own: Tensor, sizes: tuple[int, ...], workers: dist.ProcessGroup) -> Tensor:
    """Another: this worker's rows keep their gradient, what the others' losses say of them is lost."""
    every, first = no_gradient(own, sizes, workers), sum(sizes[: workers.rank()])
    return torch.cat([every[:first], own, every[first + len(own) :]])


TRUE_GATHER = contrastive.gather
FAULTS = {"no gradient": no_gradient, "own gradient only": own_gradient_only}


def work(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=4)
    groups = {size: dist.new_group(list(range(size))) for size in SHARES}
    mine = [case for case in CASES if rank < case[0]]
    results: dict = {case: own_share(groups[case[0]], *case[1:]) for case in mine}
    for name, fault in FAULTS.items():
        contrastive.gather = fault
        results |= {(name, size, kind): own_share(groups[size], None, kind, False)
                    for size in SHARES if rank < size for kind in ("softmax", "sigmoid")}  # fmt: skip
        contrastive.gather = TRUE_GATHER
    results["messages"] = [refusal(rank, number) for number in range(3)]
    if rank < 2:
        torch.save(results, f"{directory}/{rank}")
    dist.barrier()
    dist.destroy_process_group()


def refusal(rank: int, number: int) -> str:
    """What this worker is told where worker 1 holds something wrong."""
    x = torch.eye(4, dtype=torch.float64)
    if rank == 1:
        x = (2 * x, x[:0], x.float())[number]
    try:
        contrastive_loss(x, x, 1.0, workers=dist.group.WORLD)
    except InputError as error:
        return str(error)
    return "nothing"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    directory = tmp_path_factory.mktemp("workers")
    # Forks of a clean server that has imported what takes seconds: four spawned workers would each import it.
    multiprocessing.set_forkserver_preload(["pytest", "torch.distributed", "headfirst.nn"])
    mp.start_processes(work, (str(directory),), nprocs=4, start_method="forkserver")
    return [torch.load(Path(directory) / str(rank)) for rank in range(2)]


def largest_difference(got: Tensor, reference: Tensor) -> float:
    return (got - reference).abs().max().item()


def test_value_and_every_gradient_are_the_full_batch_s(results: list[dict]):
    assert len(CASES) == 48
    for case in CASES:
        reference = full_batch(*case[2:])
        assert reference.abs().min() > 1e-6 or case[2] == "softmax"  # everything has a gradient (softmax: no bias)
        assert largest_difference(results[0][case], reference) < 1e-10, case


def test_a_gather_without_gradient_turns_the_comparison_red(results: list[dict]):
    for kind, size, name in itertools.product(("softmax", "sigmoid"), (1, 2, 4), FAULTS):
        faulty, reference = results[0][name, size, kind], full_batch(kind, False)
        assert abs(faulty[0] - reference[0]) < 1e-10  # the value alone would not show it
        harmless = size == 1 and name == "own gradient only"
        assert (largest_difference(faulty, reference) < 1e-10) == harmless, (kind, size, name)
        if not harmless:
            assert largest_difference(faulty, reference) > 1e-3


def test_one_worker_s_bad_input_is_refused_by_all(results: list[dict]):
    first, second = (found["messages"] for found in results)
    assert first[:2] == ["worker 1 refused its embeddings; its own message says why"] * 2
    assert "image embeddings must have unit norm, but row 0 has 2" in second[0]
    assert "at least one pair" in second[1]
    assert first[2] == second[2] or "float64" in first[2]
    assert "4 columns of torch.float64, no groups at worker 0" in first[2]
