"""A region that learns: one stage of a pipeline, in a process of its own for one worker of one training run.

It is an actor: passes come into one bounded mailbox, one thread computes them, and nothing else touches the network.
Knows its own network and parameters, nothing of the rest of the brain: the driver (`training.pipeline`) routes.
"""

__all__: list[str] = []
