"""What Encephalon's training is compared with, each a program of its own that knows nothing of Encephalon."""
