"""fixloop: the quality loop for voice and chat AI agents."""
