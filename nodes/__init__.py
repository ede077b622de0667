"""DAAM Lens in ComfyUI: thin nodes around `daam_core`.

record -> capture.sampler_hooks -> capture.recording_session -> daam_core.capture      while a sampler runs
heat_maps, mask, report, … <- capture.recording_store                                  afterwards
"""
