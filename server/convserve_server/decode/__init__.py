"""Files of pictures become pixels, on threads beside the engine."""
