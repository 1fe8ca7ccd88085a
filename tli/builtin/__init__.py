"""What comes with the package: a small Llama that has learned the text of Python's standard library."""
