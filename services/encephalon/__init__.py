"""Encephalon: several expert networks for several senses, made into one working brain."""
