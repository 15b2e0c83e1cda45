"""Networks that settle: energies, their activations, and relaxation."""
