"""The levels of the command line, one function each."""
