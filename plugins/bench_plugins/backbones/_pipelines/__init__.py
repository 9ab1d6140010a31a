"""How a diffusers pipeline is judged, called and understood, without a step of its scheduler."""
