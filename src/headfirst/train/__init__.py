"""One training loop: checkpoint, resume, progress, devices. Probes and monitors enter as callbacks."""

from headfirst.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from headfirst.train.loop import Batch, Callback, Optimisation, TrainRecord, learning_rate_factor, train
from headfirst.train.signals import graceful_stop
from headfirst.train.tensorboard import write_events

__all__ = [
    "Batch",
    "Callback",
    "Checkpoint",
    "Optimisation",
    "TrainRecord",
    "graceful_stop",
    "learning_rate_factor",
    "load_checkpoint",
    "save_checkpoint",
    "train",
    "write_events",
]
