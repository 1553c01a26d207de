-- appends one event in one call and gives its position, or null when others have appended what the writer does not know of
select annals.append_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
