"""Where things are kept: DynamoDB items in and out, nothing item-shaped leaves this folder."""
