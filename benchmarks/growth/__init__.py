"""How what is done to a whole network grows with its layers and with its structures."""
