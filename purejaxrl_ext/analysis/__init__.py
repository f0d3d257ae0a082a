"""What is made of results: statistics over seeds, figures, and pictures of episodes."""
