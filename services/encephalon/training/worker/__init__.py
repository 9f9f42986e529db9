"""A worker of a training run: it takes shares of samples from the control node, computes their gradients and hands
these to the shards of the parameter server.

Knows how to compute one share after another; who gets which, and what becomes of the gradients, others decide.
"""

__all__: list[str] = []
