"""Recordings as frames: a description goes in, batches [time, batch, ...] come out."""

from snn_bp.data.augmentations import (
    Augmentation,
    Blend,
    ChannelJitter,
    CutMix,
    EventDrop,
    Flip,
    NoiseEvents,
    SpatialJitter,
    TimeCrop,
    TimeJitter,
)
from snn_bp.data.dataset import Dataset
from snn_bp.data.description import Data
from snn_bp.data.encoders import Current, Delta, Encoder, Latency, Rate, Repeat
from snn_bp.data.fingerprint import describe, first_difference
from snn_bp.data.folder import Folder
from snn_bp.data.loading import load
from snn_bp.data.tonic_sets import TonicSet
from snn_bp.data.transforms import transform_from_json, transform_to_json

__all__ = [
    "Augmentation",
    "Blend",
    "ChannelJitter",
    "Current",
    "CutMix",
    "Data",
    "Dataset",
    "Delta",
    "Encoder",
    "EventDrop",
    "Flip",
    "Folder",
    "Latency",
    "NoiseEvents",
    "Rate",
    "Repeat",
    "SpatialJitter",
    "TimeCrop",
    "TimeJitter",
    "TonicSet",
    "describe",
    "first_difference",
    "load",
    "transform_from_json",
    "transform_to_json",
]
