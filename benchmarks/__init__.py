"""What DAAM Lens costs, measured beside plain diffusers and castorini's package. See README.md."""

import os

# A table is easier to read without the libraries' remarks about optional packages.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
