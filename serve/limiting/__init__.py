"""How much one caller may ask of the service, and how much all of them together."""
