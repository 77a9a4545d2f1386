"""Files to batches: image sets, pairs, decoding, preprocessing, pixel cache, splits, views, corruptions, leak audit."""

from headfirst.data.assemble import NoLabelsError
from headfirst.data.audit import audit
from headfirst.data.augmentation import augment
from headfirst.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corrupt_image, corrupt_mixed
from headfirst.data.decode import decode_image, image_size, read_image
from headfirst.data.every_image import every_image, with_hashes
from headfirst.data.folders import read_paths
from headfirst.data.handwriting import Handwriting
from headfirst.data.imageset import ImageSet, ImageSplit, Pixels
from headfirst.data.pair_files import holds_captions
from headfirst.data.pairs import Pairs, PairSet
from headfirst.data.pixels import prepare, prepare_split, usable_cores
from headfirst.data.pool import unlabelled_pool
from headfirst.data.preprocess import geometry_key, normalise, preprocess
from headfirst.data.rows import cache_dir, fill_rows
from headfirst.data.splits import cap_per_class, few_shot, shuffled_by_name
from headfirst.data.views import View, Views

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Handwriting",
    "ImageSet",
    "ImageSplit",
    "NoLabelsError",
    "PairSet",
    "Pairs",
    "Pixels",
    "View",
    "Views",
    "audit",
    "augment",
    "cache_dir",
    "cap_per_class",
    "corrupt",
    "corrupt_image",
    "corrupt_mixed",
    "decode_image",
    "every_image",
    "few_shot",
    "fill_rows",
    "geometry_key",
    "holds_captions",
    "image_size",
    "normalise",
    "prepare",
    "prepare_split",
    "preprocess",
    "read_image",
    "read_paths",
    "shuffled_by_name",
    "unlabelled_pool",
    "usable_cores",
    "with_hashes",
]
