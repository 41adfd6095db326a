"""The page that shows what happens behind the shop: figures, a diagram, levers, and all pages."""
