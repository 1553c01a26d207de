-- appends one event in one call and gives its position; null when the head, the stream changes or
-- the incarnation differ from what the writer has cached. parameters: functions/append_one.sql
select annals.append_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
