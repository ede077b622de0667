"""Recording inside ComfyUI: hooks on a sampler's run, whose rows and columns are whose, finished recordings."""
