"""Generated from protos/ by `poe protos`. Never edited."""
