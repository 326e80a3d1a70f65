"""Code that is sent to the runtime: standard library only, Python 3.10 and later, imports nothing else of the product."""
