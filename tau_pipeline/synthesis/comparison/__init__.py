"""Train systems, losses, and target scalings fold by fold, and compare them."""
