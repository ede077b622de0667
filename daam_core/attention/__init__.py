"""Attention scores as pure functions of queries and keys."""
