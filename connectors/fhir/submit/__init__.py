"""submit owns handing a published dataset over to a receiver: Bulk Submit, its status, and what was refused."""
