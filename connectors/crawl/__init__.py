"""crawl owns fetching by FHIR search: the cohort of patients and the paging of one search."""
