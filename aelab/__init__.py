"""aelab: a config-driven experiment runner for autoencoders and their relatives."""
