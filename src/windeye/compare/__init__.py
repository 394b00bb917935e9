"""Mechanisms side by side: the same skeleton, data and budget for each.

`windeye.compare.sequence` compares mixers of sequences; what comparisons share stands here.
"""
