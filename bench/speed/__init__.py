"""How long a query and a direction of the text tower take, beside torch's."""
