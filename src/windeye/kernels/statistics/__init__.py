"""Numbers about attention maps that are never built: rows and columns of them, summed while they stream by."""
