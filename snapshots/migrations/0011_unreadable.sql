-- Of a type that the EHR does not let anybody read, an absent row cannot be asked for: that is no answer, and no lack of one.

ALTER TABLE absence
    DROP CONSTRAINT absence_said_check,
    ADD CONSTRAINT absence_said_check
        CHECK (said IN ('not-found', 'gone', 'deleted', 'merged', 'withheld', 'unanswered', 'unreadable'));
