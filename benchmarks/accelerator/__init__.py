"""Everything that is worth knowing of a machine with an accelerator, by one command; see README.md."""
