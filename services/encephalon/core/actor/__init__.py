"""What makes an actor: a bounded, ordered, batching mailbox. Knows nothing of tensors, networks or gRPC; runs on any
event loop, also one of virtual time.
"""

from encephalon.core.actor.batch import Batch
from encephalon.core.actor.mailbox import Mailbox

__all__ = ["Batch", "Mailbox"]
