"""Softmax attention over bound patterns. Every backend returns ``(out, lse)``; `registry` says which runs."""
