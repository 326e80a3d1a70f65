"""Sessions: getting a runtime, holding its kernels, finding them again."""
