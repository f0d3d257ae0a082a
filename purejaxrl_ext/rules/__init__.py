"""Learning rules: a file is its pseudocode, pure functions of arrays that see no network, parameters or environment."""
