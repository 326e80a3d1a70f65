"""Code for the runtime: standard library only, Python 3.10 and later, imports nothing else of the product."""
