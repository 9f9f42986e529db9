"""What tests and benches of training share: what a run must come to, and how a run of real processes is held and
hurt."""
