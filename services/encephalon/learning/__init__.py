"""What workers, learning regions and shards share: how a model is cut into slices, how gradients and parameters travel
and are kept, and a brain as one module that learns.

Knows nothing of who is in a run, of plans and of steps.
"""

__all__: list[str] = []
