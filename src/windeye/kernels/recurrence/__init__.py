"""Causal linear attention with decay: one function in parallel, chunked and recurrent forms. `registry` says which runs."""
