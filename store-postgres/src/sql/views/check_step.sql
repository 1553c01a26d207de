-- says why a step is refused of which more is to come, and keeps its generation from being dropped
-- until the transaction ends
select refusal, owner, number from annals.check_step($1, $2, $3, $4, $5, $6, $7, false)
