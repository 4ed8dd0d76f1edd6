-- Which texts do not become jsonb, by their places, and the SQLSTATE of each. An error that is caught is not logged: one that is not
-- has the text in the server's log.
CREATE FUNCTION refused_bodies(bodies text[]) RETURNS TABLE (place int, state text) LANGUAGE plpgsql AS $$
BEGIN
    FOR n IN 1 .. coalesce(array_length(bodies, 1), 0) LOOP
        BEGIN
            PERFORM bodies[n]::jsonb;
        EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
            place := n;
            state := SQLSTATE;
            RETURN NEXT;
        END;
    END LOOP;
END
$$;
