-- A patient may be behind only because rows are withheld: no listing brings more until one of them can be read.

ALTER TABLE lag ADD COLUMN withheld boolean NOT NULL DEFAULT false;
