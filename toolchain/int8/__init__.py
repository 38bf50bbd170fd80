"""INT8: ranges measured on samples, layers rounded one by one, float where the budget asks."""
