"""Tests of what turns sources into text."""
