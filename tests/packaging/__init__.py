"""What is released: the units, the documents made from the parser, the lock, the wheel and the sdist."""
