"""Finished heat maps: the data of one picture, choices of it, other aggregations, files. Imports no hook."""
