"""One training loop for everything that trains.

What enters: a module, a function from a batch of sample indices to the batch's mean loss, and an `Optimisation`.
What leaves: the module, trained, and a `TrainRecord`. Data order and dropout are drawn from (seed, epoch, step), so
a resumed run and an undisturbed one end in the same bits.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headfirst.errors import DivergenceError, FingerprintError, InputError, Interrupted
from headfirst.randomness import keyed_bits, keyed_permutation
from headfirst.train.averages import update_average
from headfirst.train.checkpoint import load_checkpoint, save_checkpoint
from headfirst.train.distributed import World, join_world, sum_gradients
from headfirst.train.signals import graceful_stop
from headfirst.types import Progress, silent

_ORDER, _DROPOUT = 1, 2  # streams of the keyed generator


@dataclass(frozen=True)
class Batch:
    """`indices` (B,) int64 of the samples this worker sees in step `step`, from 0; `num_global` over all workers."""

    epoch: int
    indices: np.ndarray
    num_global: int
    step: int


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How long, in what batches, under which schedule: linear warm-up, then a cosine to zero.

    Attributes:
        warmup: share of all steps over which the learning rate rises from zero.
        clip_norm: largest global gradient norm; None leaves gradients alone.
        ema_decay: keep an exponential moving average of the parameters and end on it.
        drop_last: leave the samples over that fill no batch out of the epoch (other ones in each), for losses that
            are about the whole batch; the batch then holds a sample for every worker.
    """

    epochs: int
    batch_size: int
    warmup: float = 0.1
    clip_norm: float | None = 1.0
    ema_decay: float | None = None
    drop_last: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is a share of the steps in [0, 1), got {self.warmup}")

    def steps_per_epoch(self, num_samples: int, num_workers: int = 1) -> int:
        """Batches an epoch.

        Raises:
            InputError: `drop_last` and no full batch, or a batch that gives a worker nothing to do.
        """
        if not self.drop_last:
            return math.ceil(num_samples / self.batch_size)
        if not num_workers <= self.batch_size <= num_samples:
            raise InputError(
                f"batch_size must lie between the number of workers ({num_workers}) and the number of samples "
                f"({num_samples}) where only full batches count, got {self.batch_size}"
            )
        return num_samples // self.batch_size


@dataclass(frozen=True, kw_only=True)
class TrainRecord:
    """`losses`: mean training loss of each epoch. `finished` is false where `until_epoch` or a callback ended it."""

    steps: int
    losses: tuple[float, ...]
    seconds: float
    finished: bool


@dataclass
class _State:
    """The position: everything but the tensors that a resumed run needs."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    sum: float = 0.0
    seconds: float = 0.0
    stopped: bool = False


Callback = Callable[[int, nn.Module], bool]
"""Called as `callback(epochs_done, module)` after each epoch; True ends the training there.

A run resumed after a kill repeats the epoch it was in: a callback may be called twice for one epoch."""


def never() -> bool:
    """Nothing can be given up."""
    return False


def learning_rate_factor(step: int, num_steps: int, warmup: float) -> float:
    """Multiplier of the base learning rate at `step` of `num_steps`: linear warm-up, then half a cosine to zero.

    >>> [round(learning_rate_factor(s, 4, 0.25), 3) for s in range(4)]
    [1.0, 1.0, 0.75, 0.25]
    """
    num_warmup = round(warmup * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    return 0.5 * (1 + math.cos(math.pi * (step - num_warmup) / max(1, num_steps - num_warmup)))


def train(
    module: nn.Module,
    loss: Callable[[Batch], Tensor],
    groups: Sequence[dict[str, Any]],
    optimisation: Optimisation,
    *,
    num_samples: int,
    seed: int,
    fingerprint: str = "",
    directory: Path | None = None,
    until_epoch: int | None = None,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[Callback] = (),
    optimiser: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = torch.optim.AdamW,
    relieve: Callable[[], bool] = never,
    progress: Progress = silent,
    stage: str = "training",
) -> TrainRecord:
    """Train `module` in place.

    Args:
        loss: from a batch to its mean loss (a scalar with a gradient).
        groups: the optimiser's parameter groups (`params`, `lr`, …); `lr` is the peak.
        num_samples: samples an epoch; each is seen once (but see `drop_last`), in an order drawn from (seed, epoch).
        fingerprint: names the run; a directory that holds another one is refused.
        directory: where checkpoints and `log.jsonl` go; the same call continues from there. None keeps nothing.
        optimiser: makes the optimiser from the groups.
        relieve: called where a step ran out of memory; True means that `loss` will need less, and the step is tried
            again. Several workers are not relieved: the others would wait for the one that is.
        until_epoch: pause (saved) after this many epochs of the full schedule; the same call goes on.

    Raises:
        DivergenceError: the loss or the gradient norm is not finite; names the step.
        FingerprintError: `directory` belongs to another run.
        InputError: only full batches count, and there is none or one too small for the workers.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    parameters = [p for group in groups for p in group["params"]]
    updates = optimiser([dict(group) for group in groups])
    peaks = [group["lr"] for group in groups]
    world = join_world(parameters[0].device)
    steps_per_epoch = optimisation.steps_per_epoch(num_samples, world.size)
    num_seen = steps_per_epoch * optimisation.batch_size if optimisation.drop_last else num_samples
    num_steps = steps_per_epoch * optimisation.epochs
    ema = [p.detach().clone() for p in parameters] if optimisation.ema_decay is not None else []
    state = _State()

    def save() -> None:
        if directory is not None and world.rank == 0:
            tensors = _tensors(module, parameters, updates, ema)
            save_checkpoint(directory, state.step, tensors, {"fingerprint": fingerprint, **vars(state)})

    if directory is not None and (found := load_checkpoint(directory)) is not None:
        position = dict(found.position)
        if position.pop("fingerprint") != fingerprint:
            raise FingerprintError(
                f"{directory} holds the state of another run (its recipe or data differ); "
                "give another directory, or start anew with --fresh"
            )
        state = _State(**position)
        _restore(found.tensors, module, parameters, updates, ema)

    order: np.ndarray | None = None  # of the epoch
    began, saved = time.monotonic() - state.seconds, time.monotonic()
    with graceful_stop() as stop:
        while state.step < num_steps and not state.stopped:
            epoch, within = divmod(state.step, steps_per_epoch)
            if until_epoch is not None and epoch >= until_epoch:
                break
            factor = learning_rate_factor(state.step, num_steps, optimisation.warmup)
            for group, peak in zip(updates.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            if within == 0 or order is None:
                order = keyed_permutation(num_samples, seed, _ORDER, epoch)
            chosen = order[within * optimisation.batch_size : (within + 1) * optimisation.batch_size]
            value = _step_in_memory(
                relieve if world.size == 1 else never,
                lambda e=epoch, c=chosen: _step(loss, parameters, updates, optimisation, c, e, state.step, seed, world),
            )
            if optimisation.ema_decay is not None:
                update_average(ema, parameters, optimisation.ema_decay)
            state.step += 1
            state.sum += value * len(chosen)
            state.seconds = time.monotonic() - began
            progress(stage, state.step, num_steps)
            if within == steps_per_epoch - 1:
                state.losses.append(state.sum / num_seen)
                state.sum = 0.0
                _log(directory, world, epoch=epoch + 1, step=state.step, loss=state.losses[-1], lr_factor=factor,
                     seconds=round(state.seconds, 3))  # fmt: skip
                # every callback runs, also after one has asked to end
                state.stopped = any([callback(epoch + 1, module) for callback in callbacks])  # noqa: C419
            if stop.requested:
                save()
                raise Interrupted(
                    f"stopped at step {state.step} of {num_steps}; "
                    + ("run the same command again to resume" if directory else "nothing was to be saved")
                )
            if time.monotonic() - saved > checkpoint_seconds:
                save()
                saved = time.monotonic()
    save()
    finished = state.step == num_steps
    if ema and (finished or state.stopped):
        with torch.no_grad():
            for parameter, average in zip(parameters, ema, strict=True):
                parameter.copy_(average)
    return TrainRecord(steps=state.step, losses=tuple(state.losses), seconds=state.seconds, finished=finished)


def _step_in_memory(relieve: Callable[[], bool], step: Callable[[], float]) -> float:
    """The step, tried again for as long as it runs out of memory and something can be given up."""
    while True:
        try:
            return step()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
        # Out here the failed step's tensors are gone.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not relieve():
            raise InputError(
                f"a step needs more memory than there is ({said}); give a smaller micro_batch, batch_size or image size"
            )


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "could not create a primitive")
"""How PyTorch's CPU allocator, C++ and oneDNN say it; the last also says other things, which come up again at once."""


def out_of_memory(error: BaseException) -> bool:
    """Whether this is how PyTorch, or Python, says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def _step(
    loss: Callable[[Batch], Tensor],
    parameters: list[Tensor],
    optimiser: torch.optim.Optimizer,
    optimisation: Optimisation,
    chosen: np.ndarray,
    epoch: int,
    step: int,
    seed: int,
    world: World,
) -> float:
    """One update; returns the mean loss over the whole batch."""
    mine = chosen[world.rank :: world.size]
    optimiser.zero_grad(set_to_none=True)
    local = torch.zeros(())
    if len(mine):
        devices = [parameters[0].device] if parameters[0].device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            drawn = int(keyed_bits(seed, _DROPOUT, step, world.rank) >> np.uint64(1))
            if parameters[0].device.type == "cpu":
                torch.default_generator.manual_seed(drawn)  # `torch.manual_seed` spends 0.4 ms on GPUs
            else:
                torch.manual_seed(drawn)
            local = loss(Batch(epoch, mine, len(chosen), step)) * (len(mine) / len(chosen))
            local.backward()
    value = local.detach().clone()
    if world.size > 1:
        sum_gradients(parameters, world)
        torch.distributed.all_reduce(value)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not (math.isfinite(value.item()) and math.isfinite(norm.item())):
        raise DivergenceError(
            f"step {step}: the loss is {value.item():.4g} and the gradient norm {norm.item():.4g}, both must be "
            "finite; a smaller learning rate is the usual remedy"
        )
    if optimisation.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, optimisation.clip_norm, norm)
    optimiser.step()
    return value.item()


def _tensors(
    module: nn.Module, parameters: list[Tensor], optimiser: torch.optim.Optimizer, ema: list[Tensor]
) -> dict[str, Tensor]:
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    for i, parameter in enumerate(parameters):
        state = optimiser.state[parameter]
        tensors |= {f"optimiser.{i}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    return tensors | {f"ema.{i}": tensor for i, tensor in enumerate(ema)}


def _restore(
    tensors: dict[str, Tensor],
    module: nn.Module,
    parameters: list[Tensor],
    optimiser: torch.optim.Optimizer,
    ema: list[Tensor],
) -> None:
    module.load_state_dict({k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")})
    for i, parameter in enumerate(parameters):
        prefix = f"optimiser.{i}."
        optimiser.state[parameter] = {
            k.removeprefix(prefix): v if k.endswith(".step") else _laid_out_like(parameter, v)
            for k, v in tensors.items()
            if k.startswith(prefix)
        }
    for i, tensor in enumerate(ema):
        tensor.copy_(tensors[f"ema.{i}"])


def _laid_out_like(parameter: Tensor, state: Tensor) -> Tensor:
    """On the parameter's device and in its memory layout, which fused optimisers take for granted; files keep none."""
    if state.shape != parameter.shape:
        return state.to(parameter.device)
    return torch.empty_like(parameter, dtype=state.dtype, requires_grad=False).copy_(state)


def _log(directory: Path | None, world: World, **record: int | float) -> None:
    if directory is not None and world.rank == 0:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
