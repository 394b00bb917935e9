"""Causal linear attention with decay: parallel, chunked and recurrent forms; `registry` says which runs."""
