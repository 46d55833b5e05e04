SET 'pipeline.name' = 'errors';
-- case: unknown setting
SET 'checkpoint.intervall' = '5 s';
-- case: setting with a wrong value
SET 'checkpoint.interval' = 'soon';
-- case: trigger that is none
SET 'trigger' = 'sometimes';
-- case: two names of one setting
SET 'checkpoint.interval' = '5 s';
SET 'execution.checkpointing.interval' = '6 s';
-- case: a query that goes nowhere
SELECT 1;
-- case: misspelled statement
CRATE TABLE t (a INT);
-- case: statements of a catalog
DROP TABLE t;
-- case: INSERT OVERWRITE
INSERT OVERWRITE t SELECT 1;
-- case: unclosed bracket
CREATE TABLE t (a INT
;
-- case: unterminated string
SET 'a' = 'b;
-- case: unknown type
CREATE TABLE t (a BIGNIT) WITH ('connector' = 'print');
-- case: missing comma
CREATE TABLE t (a BIGINT b BIGINT) WITH ('connector' = 'print');
-- case: column declared twice
CREATE TABLE t (a BIGINT, a INT) WITH ('connector' = 'print');
-- case: no connector
CREATE TABLE t (a BIGINT);
-- case: unknown connector
CREATE TABLE t (a BIGINT) WITH ('connector' = 'kafak');
-- case: option given twice
CREATE TABLE t (a BIGINT) WITH ('connector' = 'print', 'connector' = 'kafka');
-- case: primary key without NOT ENFORCED
CREATE TABLE t (a BIGINT, PRIMARY KEY (a)) WITH ('connector' = 'print');
-- case: primary key of a column that is not there
CREATE TABLE t (amount BIGINT, PRIMARY KEY (amuont) NOT ENFORCED) WITH ('connector' = 'print');
-- case: watermark of a column that is not there
CREATE TABLE t (ts TIMESTAMP(3), WATERMARK FOR tz AS tz - INTERVAL '1' SECOND) WITH ('connector' = 'datagen');
-- case: watermark of a text
CREATE TABLE t (ts STRING, WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen');
-- case: watermark that is no timestamp
CREATE TABLE t (ts TIMESTAMP(3), WATERMARK FOR ts AS 5) WITH ('connector' = 'datagen');
-- case: watermark of a field
CREATE TABLE t (r ROW<ts TIMESTAMP(3)>, WATERMARK FOR r.ts AS r.ts) WITH ('connector' = 'datagen');
-- case: computed column of an unknown column
CREATE TABLE t (price BIGINT, total AS prise * 2) WITH ('connector' = 'datagen');
-- case: unknown metadata
CREATE TABLE t (a BIGINT, k BIGINT METADATA FROM 'offst') WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'x:1', 'format' = 'json');
-- case: name declared twice
CREATE TABLE t (a BIGINT) WITH ('connector' = 'print');
CREATE VIEW t AS SELECT 1;
-- case: a database before the name
CREATE TABLE db.t (a BIGINT) WITH ('connector' = 'print');
-- case: only inserts in a statement set
EXECUTE STATEMENT SET BEGIN
SET 'a' = 'b';
END;
-- case: nested brackets
CREATE VIEW v AS SELECT ((((((((((((((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))))))))))))));
-- case: nothing to do (without a place)
CREATE TABLE t (a BIGINT) WITH ('connector' = 'print');
