"""The pipeline: recipe -> plan -> engine -> run directory, and the command line."""
