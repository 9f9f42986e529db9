"""`poe bench-serving`: one graph served by Encephalon, Triton and Ray Serve, asked by one client in one run.

What belongs here: starting each system as its knowledgeable user would, loading it, checking its answers, and judging
the ratios. `triton_models/` and `ray_app` run in the environments of those systems and import nothing of this package.
"""
