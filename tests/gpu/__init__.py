"""Every check that needs a GPU, as one command of a few minutes on one card: `python -m tests.gpu`.

It runs from a plain checkout with torch and transformers alone. What it shows is printed as one table and written
as JSON. The same code runs on the CPU with small shapes (`--device cpu --size tiny`), as the default tests do.
"""
