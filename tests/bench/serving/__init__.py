"""`poe bench-serving`: one graph served by Encephalon, by Triton's ensemble and by Ray Serve, asked by one client in one run.

What belongs here: starting each system as its knowledgeable user would, loading it, checking its answers, and judging
the ratios. `triton_models/` and `ray_app` run inside the environments of those systems and import nothing of this package.
"""
