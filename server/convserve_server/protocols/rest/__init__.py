"""HTTP's own protocols: plain functions from requests to calls of the services, and back."""
