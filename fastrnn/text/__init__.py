"""Series out of delimited text: its bytes, its lines, how they are to be read, its numbers."""
