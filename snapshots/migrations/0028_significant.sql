-- What of a resource makes a version of it, where the site lets its EHR rewrite the rest: `meta` (its instant and version) or a
-- narrative that was generated out of the resource.
CREATE FUNCTION significant(body jsonb, ignored text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT CASE WHEN 'narrative' = ANY(ignored) AND stamped #>> '{text,status}' = 'generated' THEN stamped #- '{text,div}' ELSE stamped END
FROM (
    SELECT CASE WHEN 'meta' = ANY(ignored) THEN body #- '{meta,lastUpdated}' #- '{meta,versionId}' ELSE body END AS stamped
) s
$$;
