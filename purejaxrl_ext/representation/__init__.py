"""What is measured of networks: how rich, how alive and how large their features are."""
