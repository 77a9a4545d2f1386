"""One training loop: checkpoint, resume, progress, devices. Probes and monitors enter as callbacks."""

from headfirst.train.averages import update_average
from headfirst.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from headfirst.train.decay import decay_groups
from headfirst.train.distributed import World, join_world, sharing_workers, together, told_by_first
from headfirst.train.folder import training_folder
from headfirst.train.lines import append_line, read_lines
from headfirst.train.loop import Batch, Callback, Optimisation, TrainRecord, learning_rate_factor, out_of_memory, train
from headfirst.train.signals import graceful_stop
from headfirst.train.tensorboard import write_events

__all__ = [
    "Batch",
    "Callback",
    "Checkpoint",
    "Optimisation",
    "TrainRecord",
    "World",
    "append_line",
    "decay_groups",
    "graceful_stop",
    "join_world",
    "learning_rate_factor",
    "load_checkpoint",
    "out_of_memory",
    "read_lines",
    "save_checkpoint",
    "sharing_workers",
    "together",
    "told_by_first",
    "train",
    "training_folder",
    "update_average",
    "write_events",
]
