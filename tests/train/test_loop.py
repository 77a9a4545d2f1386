"""The loop: resume is bit-identical, workers agree with one process, and what diverges says where."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headfirst.errors import DivergenceError, FingerprintError, InputError, Interrupted
from headfirst.train import Batch, Optimisation, TrainRecord, learning_rate_factor, train

X = torch.randn(37, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X @ torch.arange(1.0, 6.0, dtype=torch.float64)
RECIPE = Optimisation(epochs=4, batch_size=8)


def network(dropout: float = 0.3) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(5, 7), nn.Dropout(dropout), nn.Tanh(), nn.Linear(7, 1)).double()
    with torch.no_grad():
        for i, parameter in enumerate(layers.parameters()):
            parameter.copy_(
                torch.linspace(-0.5, 0.5, parameter.numel(), dtype=torch.float64).view_as(parameter) + 0.01 * i
            )
    return layers.train()


def fit(module: nn.Module, recipe: Optimisation = RECIPE, lr: float = 1e-2, **options: object) -> TrainRecord:
    def loss(batch: Batch) -> Tensor:
        return ((module(X[batch.indices]).squeeze(1) - Y[batch.indices]) ** 2).mean()

    return train(module, loss, [{"params": list(module.parameters()), "lr": lr}], recipe, num_samples=37, seed=3,
                 **options)  # fmt: skip


def weights(module: nn.Module) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in module.parameters())


def test_schedule_rises_linearly_then_follows_half_a_cosine():
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_every_sample_is_seen_once_an_epoch_and_the_order_changes():
    seen: list[np.ndarray] = []
    module = nn.Linear(1, 1)

    def loss(batch: Batch) -> Tensor:
        seen.append(batch.indices)
        return module.weight.sum()

    train(module, loss, [{"params": list(module.parameters()), "lr": 1e-3}], Optimisation(epochs=2, batch_size=8),
          num_samples=37, seed=0)  # fmt: skip
    first, second = np.concatenate(seen[:5]), np.concatenate(seen[5:])
    assert sorted(first) == sorted(second) == list(range(37))
    assert first.tolist() != second.tolist()


def test_the_recorded_loss_is_the_mean_over_samples_not_over_batches():
    module = nn.Linear(1, 1)
    record = train(module, lambda b: module.weight.sum() * 0 + float(len(b.indices)),
                   [{"params": list(module.parameters()), "lr": 0.1}], Optimisation(epochs=1, batch_size=8),
                   num_samples=37, seed=0)  # fmt: skip
    assert record.losses[0] == pytest.approx((4 * 8 * 8 + 5 * 5) / 37)


def test_drop_last_leaves_other_samples_out_of_each_epoch():
    seen: list[np.ndarray] = []
    module = nn.Linear(1, 1)

    def loss(batch: Batch) -> Tensor:
        seen.append(batch.indices)
        return module.weight.sum() * 0 + float(len(batch.indices))

    record = train(module, loss, [{"params": list(module.parameters()), "lr": 1e-3}],
                   Optimisation(epochs=2, batch_size=8, drop_last=True), num_samples=37, seed=0)  # fmt: skip
    assert [len(indices) for indices in seen] == [8] * 8
    first, second = (set(np.concatenate(part).tolist()) for part in (seen[:4], seen[4:]))
    assert len(first) == len(second) == 32
    assert first != second
    assert record.losses == (8.0, 8.0)  # a mean over the samples that were seen


def test_drop_last_refuses_what_would_train_nothing_or_hang():
    recipe = Optimisation(epochs=1, batch_size=8, drop_last=True)
    with pytest.raises(InputError, match=r"number of samples \(7\) where only full batches count, got 8"):
        train(nn.Linear(1, 1), lambda _: torch.zeros(()), [{"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0}],
              recipe, num_samples=7, seed=0)  # fmt: skip
    with pytest.raises(InputError, match=r"number of workers \(9\)"):
        recipe.steps_per_epoch(100, 9)
    assert recipe.steps_per_epoch(100, 8) == 12


def test_global_rng_neither_matters_nor_moves():
    one, two = network(), network()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    fit(one)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    fit(two)
    assert weights(one) == weights(two)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("pause", [1, 3])
def test_paused_and_resumed_equals_undisturbed(tmp_path: Path, pause: int, ema_decay: float | None):
    recipe = Optimisation(epochs=4, batch_size=8, ema_decay=ema_decay)
    whole, parts = network(), network()
    straight = fit(whole, recipe)
    paused = fit(parts, recipe, directory=tmp_path, until_epoch=pause)
    assert (paused.steps, paused.finished) == (pause * 5, False)
    resumed = network()
    record = fit(resumed, recipe, directory=tmp_path)
    assert record.finished
    assert record.losses == straight.losses
    assert weights(whole) == weights(resumed)
    again = network()  # a finished run only loads
    assert fit(again, recipe, directory=tmp_path).steps == straight.steps
    assert weights(again) == weights(whole)


def test_ema_ends_on_the_moving_average():
    path = []
    module = nn.Linear(1, 1, bias=False)
    start = module.weight.item()

    def loss(batch: Batch) -> Tensor:
        path.append(module.weight.item())
        return module.weight.sum()

    train(module, loss, [{"params": list(module.parameters()), "lr": 0.1}],
          Optimisation(epochs=3, batch_size=4, ema_decay=0.5), num_samples=4, seed=0,
          callbacks=[lambda _, m: path.append(m.weight.item()) or False])  # fmt: skip
    average = start
    for value in [path[1], path[3], path[5]]:  # the weight after each step
        average = 0.5 * average + 0.5 * value
    assert module.weight.item() == pytest.approx(average, rel=1e-6)


def test_another_run_in_the_same_directory_is_refused(tmp_path: Path):
    fit(network(), directory=tmp_path, fingerprint="a", until_epoch=1)
    with pytest.raises(FingerprintError, match="another run"):
        fit(network(), directory=tmp_path, fingerprint="b")


def test_divergence_names_the_step():
    module = nn.Linear(1, 1)
    steps = iter(range(100))

    def loss(batch: Batch) -> Tensor:
        return module.weight.sum() * (float("nan") if next(steps) == 3 else 1.0)

    with pytest.raises(DivergenceError, match="step 3"):
        train(module, loss, [{"params": list(module.parameters()), "lr": 0.1}], Optimisation(epochs=9, batch_size=1),
              num_samples=1, seed=0)  # fmt: skip


def test_callback_ends_training_and_stays_ended(tmp_path: Path):
    record = fit(network(), directory=tmp_path, callbacks=[lambda epoch, _: epoch == 2])
    assert (record.steps, record.finished) == (10, False)
    assert fit(network(), directory=tmp_path).steps == 10
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]


def test_optimisation_refuses_nonsense():
    with pytest.raises(InputError, match="epochs must be at least 1, got 0"):
        Optimisation(epochs=0, batch_size=1)


def test_a_fused_optimiser_goes_on_with_kernels_laid_out_channels_last(tmp_path: Path):
    images = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))

    def fit_kernels(directory: Path | None, *until: int | None) -> Tensor:
        torch.manual_seed(0)
        module = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        for until_epoch in until:
            train(module, lambda batch: module(images[batch.indices]).square().mean(),
                  [{"params": [module.weight], "lr": 0.1}], Optimisation(epochs=4, batch_size=8), num_samples=8, seed=0,
                  directory=directory, until_epoch=until_epoch,
                  optimiser=lambda groups: torch.optim.AdamW(groups, fused=True))  # fmt: skip
        return module.weight.detach()

    assert torch.equal(fit_kernels(tmp_path, 1, None), fit_kernels(None, None))


SCRIPT = """
import sys, time, torch
sys.path.insert(0, {here!r})
import test_loop as t
from pathlib import Path
from headfirst.errors import Interrupted
m = t.network()
print("ready", flush=True)
def slow(stage, done, total):
    print(done, flush=True); time.sleep(0.02)
try:
    t.fit(m, t.Optimisation(epochs=8, batch_size=8), directory=Path(sys.argv[1]), checkpoint_seconds=0.0, progress=slow)
except Interrupted as stop:
    print(stop); sys.exit(1)
"""


def launch(directory: Path) -> subprocess.Popen[str]:
    script = SCRIPT.format(here=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", script, str(directory)], stdout=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip


@pytest.mark.parametrize(("signal_number", "after"), [(signal.SIGKILL, 7), (signal.SIGKILL, 23), (signal.SIGTERM, 11)])
def test_killed_at_any_step_then_resumed_to_the_same_bytes(tmp_path: Path, signal_number: signal.Signals, after: int):
    process = launch(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == str(after):
            process.send_signal(signal_number)
            break
    rest = process.stdout.read()
    assert process.wait(timeout=60) != 0
    if signal_number == signal.SIGTERM:
        assert "run the same command again to resume" in rest
    resumed, whole = network(), network()
    recipe = Optimisation(epochs=8, batch_size=8)
    seen: list[int] = []
    fit(resumed, recipe, directory=tmp_path, progress=lambda _, done, __: seen.append(done))
    assert seen[0] >= after  # it went on, it did not begin again
    fit(whole, recipe)
    assert weights(resumed) == weights(whole)


def test_interrupt_in_process_saves(tmp_path: Path):
    def interrupt(stage: str, done: int, total: int) -> None:
        if done == 6:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    with pytest.raises(Interrupted, match="step 6 of 20"):
        fit(network(), directory=tmp_path, progress=interrupt)
    resumed, whole = network(), network()
    fit(resumed, directory=tmp_path)
    fit(whole)
    assert weights(resumed) == weights(whole)


def with_a_parameter_that_no_loss_reaches(module: nn.Module) -> nn.Module:
    """Weight decay must leave it alone, whatever the number of workers."""
    module.register_parameter("spare", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    return module


WORKER = """
import sys, torch
sys.path.insert(0, {here!r})
import test_loop as t
m = t.with_a_parameter_that_no_loss_reaches(t.network(dropout=0.0))
r = t.fit(m)
torch.save([p.detach() for p in m.parameters()], sys.argv[1] + "/" + __import__("os").environ["RANK"])
"""


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_take_the_step_of_the_whole_batch(tmp_path: Path, workers: int):
    script = WORKER.format(here=str(Path(__file__).parent))
    meeting = {"WORLD_SIZE": str(workers), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29617", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], env={**os.environ, **meeting, "RANK": str(rank)}
        )
        for rank in range(workers)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * workers
    alone = with_a_parameter_that_no_loss_reaches(network(dropout=0.0))
    fit(alone)  # 37 samples in batches of 8: the last batch of 5 divides by neither 2 nor 3
    for rank in range(workers):
        for mine, reference in zip(torch.load(tmp_path / str(rank)), alone.parameters(), strict=True):
            torch.testing.assert_close(mine, reference.detach(), rtol=0, atol=1e-12)
    assert alone.spare.tolist() == [1, 1]
