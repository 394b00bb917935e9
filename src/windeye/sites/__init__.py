"""Attention in any model, watched, recorded and steered where it is called; no forward is copied."""

from windeye.sites.call import AttentionCall, attention
from windeye.sites.context import allocation, context_scores, emphasis
from windeye.sites.edits import Add, Edit, Hide, KeyBias, Patch, Rescore, Scale, ScoreBoost, Set, SetAttention
from windeye.sites.files import edits_from_json, edits_to_json
from windeye.sites.parts import Parts, parts_of
from windeye.sites.places import Keys, Where
from windeye.sites.record import Recording, record
from windeye.sites.session import SITES
from windeye.sites.steer import Steering, steer
from windeye.sites.until import until
from windeye.sites.watch import Watch, watch

__all__ = [
    "SITES",
    "Add",
    "AttentionCall",
    "Edit",
    "Hide",
    "KeyBias",
    "Keys",
    "Parts",
    "Patch",
    "Recording",
    "Rescore",
    "Scale",
    "ScoreBoost",
    "Set",
    "SetAttention",
    "Steering",
    "Watch",
    "Where",
    "allocation",
    "attention",
    "context_scores",
    "edits_from_json",
    "edits_to_json",
    "emphasis",
    "parts_of",
    "record",
    "steer",
    "until",
    "watch",
]
