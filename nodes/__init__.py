"""DAAM Lens in ComfyUI: thin nodes around `daam_core`.

record -> hook -> session -> daam_core      while a sampler runs
heat_maps, mask, report, … <- runs          afterwards
"""
