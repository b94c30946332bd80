"""What a traced function depends on, what it costs, and the programs kept for whoever traces it again."""
