"""Drives the regions of a brain that learn in processes of their own: a worker's share goes through them in
micro-batches, activations forward and gradients backward along the pathways.

The regions compute, pull and push (`region.learning`); here samples are cut, tensors are routed and losses computed.
"""

__all__: list[str] = []
