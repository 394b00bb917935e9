"""Truths written as loops: slow, and obviously right."""
