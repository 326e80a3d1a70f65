"""What the machine is doing: memory, disk, processors, graphics cards, and the processes of kernels."""
