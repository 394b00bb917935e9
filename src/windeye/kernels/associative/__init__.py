"""A memory whose state is the weights of a small network, written by gradient descent at every token."""
