"""Two folders kept in step: this machine's project and its workspace on a runtime."""
