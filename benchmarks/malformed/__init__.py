"""Every public function called with arguments that are wrong, and what it answers."""
