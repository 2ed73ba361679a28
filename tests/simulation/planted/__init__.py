"""The simulation proved: bugs are planted, one at a time, and it has to find each of them."""
