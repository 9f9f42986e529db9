"""What is kept of a run and shown of it: its history, pictures of it, TensorBoard's files, and its library records.

`history` and `report` need nothing that a client lacks. `curves`, `shares` and `tensorboard` need the extra `training`;
`finish` needs torch too, and runs as a process of its own: `python -m encephalon.training.recording`.
"""

from encephalon.training.recording.history import History

__all__ = ["History"]
