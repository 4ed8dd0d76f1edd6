"""elements own what FHIR R4 says about its types: names of elements, their types, and whether they repeat."""
