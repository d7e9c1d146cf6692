"""How things are measured, whatever they are: clocks, turns, the allocator, peak memory, the machine."""
