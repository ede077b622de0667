"""DAAM Lens inside AUTOMATIC1111, Forge and reForge. `scripts/daam_lens.py` is the door; only `host*` files and the page
files import the WebUI, everything else can be used without one."""
