"""Public helpers for tests: real servers as children, and a link that can be hurt."""
