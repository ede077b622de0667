"""The command line `daam-lens`."""
