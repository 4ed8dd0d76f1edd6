-- What a configuration encrypts beside the values that identify people stays encrypted, also when it is named no more: a view must
-- not take ciphertext for a value. Older keys can be forgotten, so each has all the paths.
ALTER TABLE sealing_key ADD COLUMN paths text[] NOT NULL DEFAULT '{}';
