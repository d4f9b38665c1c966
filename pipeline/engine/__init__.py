"""Carrying a plan out: one interface, in this process or on Ray."""
