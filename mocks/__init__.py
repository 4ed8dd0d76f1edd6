"""mocks own a believable EHR server with a manner per vendor; they share no code with the client they test."""
