"""The noise layer's operations against their rivals: speed beside a copy of the same bytes, and memory."""
