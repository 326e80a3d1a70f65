"""The seams of the product: what a provider or a transport must offer. Protocols only."""
