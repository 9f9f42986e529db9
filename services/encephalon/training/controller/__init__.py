"""The control node: who works, on which samples, when the shards apply what was pushed, and when it is kept.

Computes nothing itself and imports no torch. Everything but `engine` and what waits for it is plain state, changed by
messages, with the time as an argument.
"""

__all__: list[str] = []
