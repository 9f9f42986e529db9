"""Numbers that another program computed, and the scripts that asked it."""
