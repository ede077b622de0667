"""From token ids to the words of a prompt."""
