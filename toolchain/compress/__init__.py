"""The stage `compress`: plans for passes that need samples, made by measuring, and carried out."""
