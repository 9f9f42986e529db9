"""Shards of the parameter server: they hold slices of a model, add what workers push, and apply what the control node
decides.

Knows nothing of brains, regions and data sets: what it holds are slices, contributions and updates.
"""

__all__: list[str] = []
