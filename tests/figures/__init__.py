"""Figures that the README gives, measured on real processes and servers."""
