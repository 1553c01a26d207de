-- appends one event in one call and gives its position; null when the log is not as known
select annals.append_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
