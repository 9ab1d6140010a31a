"""The parts that a run is made of, each with its refusals and its entries in the identity."""
