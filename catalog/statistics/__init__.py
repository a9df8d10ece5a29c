"""Pure functions over arrays: the paper's tests, and the analysis by rounds and inputs that decides."""
