"""Moves activations from region to region: plans, replicas, retries. It computes nothing, and knows no network."""

from encephalon.coordinator.lifetime import Coordinator, coordinate
from encephalon.coordinator.members import Hosting
from encephalon.coordinator.replicas import Answering
from encephalon.coordinator.settings import CoordinatorSettings

__all__ = ["Answering", "Coordinator", "CoordinatorSettings", "Hosting", "coordinate"]
