"""An application with accounts, and transfers between them. It knows nothing of greenlets."""
