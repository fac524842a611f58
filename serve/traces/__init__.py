"""Runs of modes that are kept for a while, so that an answer can be looked at and asked for again later."""
