"""A training run: its control node, which knows who learns what, and its workers, which compute.

The control node imports no torch; the optimiser is the parameter server's.
"""

__all__: list[str] = []
