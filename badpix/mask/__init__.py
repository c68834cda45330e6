"""The product: search types and manual lists combined into a DQ image, and the MASK file with its rules."""
