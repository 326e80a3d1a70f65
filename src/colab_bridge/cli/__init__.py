"""The command line. Each module below ``commands`` is imported when its command is called, and not before."""
