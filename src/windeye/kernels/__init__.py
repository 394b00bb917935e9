"""The numbers: one folder per kind of attention, one file per backend.

Everything above speaks to them through `windeye.ops`.
"""
