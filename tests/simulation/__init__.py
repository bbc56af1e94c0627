"""Deterministic simulation: the library in several processes at once, in one thread at a time, under faults."""
